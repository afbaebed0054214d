-- CreateTable
CREATE TABLE "host_image" (
    "id" UUID NOT NULL,
    "host_id" UUID NOT NULL,
    "pool" TEXT NOT NULL,
    "name" TEXT NOT NULL,
    "sha256" TEXT NOT NULL,
    "format" TEXT NOT NULL,
    "size_bytes" BIGINT NOT NULL,
    "capacity_bytes" BIGINT NOT NULL,
    "state" TEXT NOT NULL,
    "filled_bytes" BIGINT NOT NULL DEFAULT 0,
    "operation_id" UUID,
    "error" JSONB,
    "created_at" TIMESTAMPTZ(3) NOT NULL DEFAULT CURRENT_TIMESTAMP,
    "last_used_at" TIMESTAMPTZ(3) NOT NULL DEFAULT CURRENT_TIMESTAMP,

    CONSTRAINT "host_image_pkey" PRIMARY KEY ("id"),
    CONSTRAINT "host_image_state_check" CHECK ("state" IN ('absent', 'filling', 'ready', 'evicting'))
);

-- CreateTable
CREATE TABLE "host_image_use" (
    "volume_id" UUID NOT NULL,
    "host_image_id" UUID NOT NULL,

    CONSTRAINT "host_image_use_pkey" PRIMARY KEY ("volume_id")
);

-- CreateIndex
CREATE INDEX "host_image_sha256_idx" ON "host_image"("sha256");

-- CreateIndex
CREATE UNIQUE INDEX "host_image_host_id_pool_sha256_format_key" ON "host_image"("host_id", "pool", "sha256", "format");

-- CreateIndex
CREATE INDEX "host_image_use_host_image_id_idx" ON "host_image_use"("host_image_id");

-- AddForeignKey
ALTER TABLE "host_image" ADD CONSTRAINT "host_image_host_id_fkey" FOREIGN KEY ("host_id") REFERENCES "host"("id") ON DELETE CASCADE ON UPDATE CASCADE;

-- AddForeignKey
ALTER TABLE "host_image_use" ADD CONSTRAINT "host_image_use_volume_id_fkey" FOREIGN KEY ("volume_id") REFERENCES "volume"("id") ON DELETE CASCADE ON UPDATE CASCADE;

-- AddForeignKey
ALTER TABLE "host_image_use" ADD CONSTRAINT "host_image_use_host_image_id_fkey" FOREIGN KEY ("host_image_id") REFERENCES "host_image"("id") ON DELETE RESTRICT ON UPDATE CASCADE;
