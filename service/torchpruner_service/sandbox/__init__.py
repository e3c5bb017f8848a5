"""Where code that came with an upload runs: parse and export, confined by the kernel.

::

    worker ── starts, once ──▶ nursery          imports torch and onnx; no credentials
       │                          │ fork
       └─ work-horse ─ request ─▶ └─▶ child      rlimits, own network, Landlock, seccomp; one task
              ▲                        │
              └──────── frames ────────┘         over a pipe: progress, data, result

The nursery never held a credential, so neither does the memory a child inherits from it.
"""
