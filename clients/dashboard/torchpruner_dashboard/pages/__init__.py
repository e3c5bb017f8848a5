"""One page a file. Each has ``install(desk)``, which registers its address."""

from __future__ import annotations

from torchpruner_dashboard.visit import Desk


def install_pages(desk: Desk) -> None:
    """Register every page of the dashboard."""
    from torchpruner_dashboard.pages.audit import install as install_audit
    from torchpruner_dashboard.pages.compare import install as install_compare
    from torchpruner_dashboard.pages.cut import install as install_cut
    from torchpruner_dashboard.pages.kept import install as install_kept
    from torchpruner_dashboard.pages.login import install as install_login
    from torchpruner_dashboard.pages.lost import install as install_lost
    from torchpruner_dashboard.pages.model import install as install_model
    from torchpruner_dashboard.pages.models import install as install_models
    from torchpruner_dashboard.pages.plan import install as install_plan
    from torchpruner_dashboard.pages.service import install as install_service

    install_models(desk)
    install_model(desk)
    install_cut(desk)
    install_plan(desk)
    install_kept(desk)
    install_compare(desk)
    install_audit(desk)
    install_service(desk)
    install_login(desk)
    install_lost(desk)
