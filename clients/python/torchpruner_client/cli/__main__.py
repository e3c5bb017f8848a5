from torchpruner_client.cli import app

app()
