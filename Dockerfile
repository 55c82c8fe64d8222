# Two images from one file, each nothing but a static binary:
#   docker build --target echo-server -t echo-server:0.2.0 .
#   docker build --target caller -t caller:0.2.0 .
# The builder compiles for the architecture that it runs on. For another one, use `--platform` with an
# emulated or native builder.

# An SBOM is made from Cargo.lock, because a scan of an image that is one binary finds nothing.
ARG BUILDKIT_SBOM_SCAN_CONTEXT=true

FROM rust:1.95-slim-bookworm AS build
WORKDIR /src
# A static glibc is enough: the programs look up names by themselves, so nothing is missing at run time.
# On x86-64, where Rust links with lld, the caller is 22 KB smaller (compressed) for relocations that are packed, and
# 60 KB for functions and constants that lie beside those they resemble; echo-server is 29 KB smaller for both.
ENV CARGO_TARGET_AARCH64_UNKNOWN_LINUX_GNU_RUSTFLAGS="-C target-feature=+crt-static" \
    CARGO_TARGET_X86_64_UNKNOWN_LINUX_GNU_RUSTFLAGS="-C target-feature=+crt-static \
        -C link-arg=-Wl,-z,pack-relative-relocs -C link-arg=-Wl,--bp-compression-sort=both"

# The dependencies alone, from the manifests and empty sources, so that a change of the code does
# not compile them again.
COPY Cargo.toml Cargo.lock ./
COPY crates/bench/Cargo.toml crates/bench/
COPY crates/caller/Cargo.toml crates/caller/
COPY crates/echo-server/Cargo.toml crates/echo-server/
COPY crates/local-cluster/Cargo.toml crates/local-cluster/
COPY crates/runtime/Cargo.toml crates/runtime/
COPY crates/test-support/Cargo.toml crates/test-support/
RUN for crate in crates/*; do \
        mkdir $crate/src && touch $crate/src/lib.rs && echo 'fn main() {}' > $crate/src/main.rs; \
    done && rm crates/runtime/src/main.rs crates/test-support/src/main.rs \
    && cargo build --release --locked --target host-tuple -p echo-server \
    && cargo build --profile caller --locked --target host-tuple -p caller

# touch, because the sources are older than the empty ones that were just compiled in their place.
COPY crates crates
RUN find crates -name '*.rs' -exec touch {} + \
    && cargo build --release --locked --target host-tuple -p echo-server \
    && cargo build --profile caller --locked --target host-tuple -p caller \
    && mkdir -p /out/echo-server/bin /out/caller/bin \
    && cp target/*/release/echo-server /out/echo-server/bin/ \
    && cp target/*/caller/caller /out/caller/bin/ && ln -s caller /out/caller/bin/curl

FROM scratch AS echo-server
# The repository, and the commit that is built.
ARG SOURCE REVISION
LABEL org.opencontainers.image.title="echo-server" \
      org.opencontainers.image.description="Answers every request with a fixed text; a drop-in for hashicorp/http-echo that drains" \
      org.opencontainers.image.version="0.2.0" \
      org.opencontainers.image.licenses="MIT" \
      org.opencontainers.image.source="$SOURCE" \
      org.opencontainers.image.revision="$REVISION"
COPY --from=build /out/echo-server/ /
ENV PATH=/bin
USER 65532:65532
EXPOSE 8080 8081
ENTRYPOINT ["/bin/echo-server"]

FROM scratch AS caller
ARG SOURCE REVISION
LABEL org.opencontainers.image.title="caller" \
      org.opencontainers.image.description="Resolves a Service through cluster DNS, calls it, and says what happened" \
      org.opencontainers.image.version="0.2.0" \
      org.opencontainers.image.licenses="MIT" \
      org.opencontainers.image.source="$SOURCE" \
      org.opencontainers.image.revision="$REVISION"
# The folder, because COPY of a link would copy the file that it leads to.
COPY --from=build /out/caller/ /
ENV PATH=/bin
USER 65532:65532
EXPOSE 8082
ENTRYPOINT ["/bin/caller"]
