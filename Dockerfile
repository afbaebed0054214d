# The service alone, without build tools: dist, production packages, migrations. Hosts are reached over the network.
FROM node:24-bookworm-slim AS build
WORKDIR /src
COPY package.json package-lock.json .npmrc ./
RUN npm install --no-save --include=dev --include=optional
COPY . .
RUN npm run build && npm prune --omit=dev

FROM node:24-bookworm-slim
# qemu-img gives a second opinion on uploaded images; ssh reaches hosts.
RUN apt-get update \
 && apt-get install --yes --no-install-recommends openssh-client qemu-utils \
 && rm -rf /var/lib/apt/lists/*
WORKDIR /app
COPY --from=build /src/package.json ./
COPY --from=build /src/node_modules node_modules
COPY --from=build /src/prisma/migrations prisma/migrations
COPY --from=build /src/dist dist
RUN install --directory --owner=node --mode=0700 /var/lib/drover
USER node
ENV DROVER_DATA_DIR=/var/lib/drover DROVER_LISTEN=0.0.0.0:7420 NODE_ENV=production
VOLUME /var/lib/drover
EXPOSE 7420
ENTRYPOINT ["node", "--max-semi-space-size=16", "dist/main.js"]
CMD ["serve"]
