-- AlterTable
ALTER TABLE "volume" ADD COLUMN     "allocation_bytes" BIGINT,
ADD COLUMN     "delete_policy" TEXT NOT NULL DEFAULT 'delete',
ADD COLUMN     "error" JSONB,
ADD COLUMN     "generation" INTEGER NOT NULL DEFAULT 1,
ADD COLUMN     "image_id" UUID,
ADD COLUMN     "labels" JSONB NOT NULL DEFAULT '{}',
ADD COLUMN     "observed_at" TIMESTAMPTZ(3),
ADD COLUMN     "orphan_since" TIMESTAMPTZ(3),
ADD COLUMN     "own_name" TEXT,
ADD COLUMN     "source" JSONB NOT NULL DEFAULT '{"kind": "empty"}',
ADD COLUMN     "updated_at" TIMESTAMPTZ(3) NOT NULL DEFAULT CURRENT_TIMESTAMP;

-- CreateIndex
CREATE UNIQUE INDEX "volume_project_id_own_name_key" ON "volume"("project_id", "own_name");

-- CreateIndex
CREATE INDEX "volume_project_id_created_at_id_idx" ON "volume"("project_id", "created_at", "id");

-- CreateIndex
CREATE INDEX "volume_name_idx" ON "volume"("name");

-- CreateIndex
CREATE INDEX "volume_image_id_idx" ON "volume"("image_id");

-- A disk's name stands once in a VM.
CREATE UNIQUE INDEX "volume_vm_id_role_key" ON "volume"("vm_id", "role") WHERE "vm_id" IS NOT NULL;

-- AddForeignKey
ALTER TABLE "volume" ADD CONSTRAINT "volume_image_id_fkey" FOREIGN KEY ("image_id") REFERENCES "image"("id") ON DELETE RESTRICT ON UPDATE CASCADE;
