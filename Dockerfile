# The operator's image; docs/image.md says how to build it, how to build the same bytes again, and what is not tested.

# Name the base by digest, or two builds are two images: --build-arg BASE=python:3.13-slim-trixie@sha256:...
ARG BASE=python:3.13-slim-trixie

FROM ${BASE} AS build
WORKDIR /src
# The time of the files in the wheel; a zip knows none before 1980.
ENV SOURCE_DATE_EPOCH=315532800 PIP_DISABLE_PIP_VERSION_CHECK=1 PIP_CACHE_DIR=/var/cache/pip

# What the operator needs, and nothing that is not pinned by its hash: no compiler runs, and no package's own code.
COPY requirements-image.txt requirements-build.txt ./
RUN --mount=type=cache,target=/var/cache/pip \
    python -m venv --without-pip /opt/tenantry \
    && python -m pip --python /opt/tenantry/bin/python install \
        --no-deps --no-compile --only-binary :all: --require-hashes -r requirements-image.txt
RUN --mount=type=cache,target=/var/cache/pip \
    python -m venv /opt/build \
    && /opt/build/bin/python -m pip install --only-binary :all: --require-hashes -r requirements-build.txt

COPY pyproject.toml README.md LICENSE ./
COPY operator operator
# A wheel keeps the permissions of its files, which differ from one checkout to the next.
RUN chmod -R u=rwX,go=rX . \
    && /opt/build/bin/python -m pip wheel --no-deps --no-build-isolation --no-cache-dir --wheel-dir /opt/wheels .
# Compiled now, as nothing can be written later; valid by no file's time, so that the bytes are the same next time.
# The Kubernetes library's two thousand models are not: the operator uses none of them.
RUN python -m pip --python /opt/tenantry/bin/python install \
        --no-deps --no-compile --no-index --find-links /opt/wheels tenantry \
    && python -m pip --python /opt/tenantry/bin/python check \
    && python -m compileall -q -j 0 --invalidation-mode unchecked-hash -x 'kubernetes/.*/models/' /opt/tenantry/lib \
    && mkdir /opt/state

FROM ${BASE}
ARG VERSION=0.1.0
ARG REVISION=unknown
LABEL org.opencontainers.image.title="Tenantry" \
      org.opencontainers.image.description="Kubernetes operator for multi-tenant SaaS: isolated tenants, plans, metering and billing" \
      org.opencontainers.image.source="https://github.com/tenantry/tenantry" \
      org.opencontainers.image.licenses="Apache-2.0" \
      org.opencontainers.image.version="${VERSION}" \
      org.opencontainers.image.revision="${REVISION}"
COPY --from=build /opt/tenantry /opt/tenantry
# Only for a run outside of Kubernetes: the chart mounts an empty directory over it.
COPY --from=build --chown=65532:65532 /opt/state /var/lib/tenantry
# Libraries ask for a home directory, and this user has none.
ENV PATH=/opt/tenantry/bin:/usr/local/bin:/usr/bin:/bin \
    HOME=/var/lib/tenantry \
    PYTHONDONTWRITEBYTECODE=1 \
    PYTHONUNBUFFERED=1 \
    TENANTRY_STATE_DIR=/var/lib/tenantry
EXPOSE 8080
USER 65532:65532
ENTRYPOINT ["tenantry"]
CMD ["run"]
