# syntax=docker/dockerfile:1
# Three images from one file:
#   docker build --target api    -t torchpruner-api .       no torch, no onnx: answers from solved graphs
#   docker build --target worker -t torchpruner-worker .    torch, onnx, onnxruntime-gpu: builds graphs, measures
#   docker build --target dashboard -t torchpruner-dashboard .    the web page
# A CPU-only worker, several GB smaller:
#   docker build --target worker --build-arg TORCH_INDEX=https://download.pytorch.org/whl/cpu -t torchpruner-worker .

ARG PYTHON_IMAGE=python:3.11-slim-bookworm

FROM ${PYTHON_IMAGE} AS base
ENV PYTHONDONTWRITEBYTECODE=1 \
    PYTHONUNBUFFERED=1 \
    PIP_NO_CACHE_DIR=1 \
    PIP_DISABLE_PIP_VERSION_CHECK=1 \
    PATH=/opt/venv/bin:$PATH
# A fixed number, so that Kubernetes' runAsNonRoot can check it and a volume can be chowned to it.
RUN groupadd --gid 10001 torchpruner \
 && useradd --uid 10001 --gid 10001 --no-create-home --home-dir /var/lib/torchpruner torchpruner \
 && install -d -o 10001 -g 10001 /var/lib/torchpruner
WORKDIR /var/lib/torchpruner

# Dependencies first, in layers that only a change of pyproject.toml or constraints.txt rebuilds: the packages are empty here.
FROM base AS api-dependencies
WORKDIR /src
COPY pyproject.toml constraints.txt README.md LICENSE ./
RUN mkdir -p torchpruner_core service/torchpruner_service clients/python/torchpruner_client clients/dashboard/torchpruner_dashboard \
 && touch torchpruner_core/__init__.py service/torchpruner_service/__init__.py \
          clients/python/torchpruner_client/__init__.py clients/dashboard/torchpruner_dashboard/__init__.py \
 && python -m venv /opt/venv \
 && pip install -c constraints.txt pip setuptools \
 && pip install --no-build-isolation -c constraints.txt '.[api]'

FROM api-dependencies AS worker-dependencies
# Empty: PyPI's build of torch, which carries CUDA.
ARG TORCH_INDEX=
RUN if [ -n "$TORCH_INDEX" ]; then \
      pip install --index-url "$TORCH_INDEX" "$(grep '^torch==' constraints.txt)"; \
    fi \
 && pip install --no-build-isolation -c constraints.txt '.[worker]'

FROM api-dependencies AS api-build
COPY torchpruner_core torchpruner_core
COPY service service
COPY clients clients
RUN pip install --no-build-isolation --no-deps --force-reinstall .

FROM worker-dependencies AS worker-build
COPY torchpruner_core torchpruner_core
COPY service service
COPY clients clients
RUN pip install --no-build-isolation --no-deps --force-reinstall .

FROM api-dependencies AS dashboard-build
RUN pip install --no-build-isolation -c constraints.txt '.[dashboard]'
COPY torchpruner_core torchpruner_core
COPY service service
COPY clients clients
RUN pip install --no-build-isolation --no-deps --force-reinstall .

FROM base AS dashboard
COPY --from=dashboard-build /opt/venv /opt/venv
ENV TORCHPRUNER_DASHBOARD_HOST=0.0.0.0 \
    TORCHPRUNER_DASHBOARD_PORT=8080 \
    TORCHPRUNER_URL=http://api:8000
USER 10001:10001
EXPOSE 8080
HEALTHCHECK --interval=10s --timeout=5s --start-period=20s --retries=3 \
  CMD ["python", "-c", "import urllib.request as r; r.urlopen('http://127.0.0.1:8080/login', timeout=4)"]
ENTRYPOINT ["torchpruner-dashboard"]
CMD []

FROM base AS api
COPY --from=api-build /opt/venv /opt/venv
ENV TORCHPRUNER_HOST=0.0.0.0 \
    TORCHPRUNER_PORT=8000 \
    TORCHPRUNER_DATA_DIR=/var/lib/torchpruner \
    TORCHPRUNER_WORKERS=0
USER 10001:10001
VOLUME /var/lib/torchpruner
EXPOSE 8000
HEALTHCHECK --interval=10s --timeout=5s --start-period=20s --retries=3 \
  CMD ["python", "-c", "import urllib.request as r; r.urlopen('http://127.0.0.1:8000/healthz', timeout=4)"]
ENTRYPOINT ["torchpruner-service"]
CMD ["serve"]

FROM base AS worker
COPY --from=worker-build /opt/venv /opt/venv
ENV TORCHPRUNER_DATA_DIR=/var/lib/torchpruner
USER 10001:10001
VOLUME /var/lib/torchpruner
# The worker answers no port: it is well while it can reach its queue.
HEALTHCHECK --interval=30s --timeout=10s --start-period=30s --retries=3 \
  CMD ["python", "-c", "import os, redis; redis.Redis.from_url(os.environ['REDIS_URL'], socket_timeout=5).ping()"]
ENTRYPOINT ["torchpruner-service"]
CMD ["worker"]
