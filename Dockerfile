# An image of Leat: the static binary, a user without rights and a volume for the data.
#   docker build -t leat . && docker run -p 9092:9092 -v leat-data:/data leat
# Health and metrics are only for the container itself, unless you add: -e LEAT_HTTP=:8080 -p 8080:8080
# Other verbs run as well: docker run leat topic list --bootstrap HOST:PORT
FROM golang:1.26 AS build
WORKDIR /src
COPY go.mod go.sum ./
RUN go mod download
COPY . .
RUN CGO_ENABLED=0 go build -trimpath -o /leat ./cmd/leat && mkdir /data

FROM scratch
COPY --from=build /leat /leat
COPY --from=build --chown=65532:65532 /data /data
USER 65532:65532
ENV LEAT_DATA=/data LEAT_LISTEN=:9092
VOLUME /data
EXPOSE 9092
HEALTHCHECK --interval=10s --timeout=5s CMD ["/leat", "health", "--timeout", "4s"]
ENTRYPOINT ["/leat"]
CMD ["up"]
