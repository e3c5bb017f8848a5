"""Every architecture against the oracle: ``make zoo``.

A *specimen* is a model with random weights and small inputs. Each is examined in its own process:
five cuts, spread over its depth and over the kinds of axes it has, are made on its ONNX form and on
the ``nn.Module`` itself, and both are compared with the masked original.
"""
