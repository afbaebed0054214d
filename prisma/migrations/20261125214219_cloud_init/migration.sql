-- CreateTable
CREATE TABLE "vm_seed" (
    "vm_id" UUID NOT NULL,
    "files" BYTEA NOT NULL,

    CONSTRAINT "vm_seed_pkey" PRIMARY KEY ("vm_id")
);

-- CreateTable
CREATE TABLE "ssh_key" (
    "id" UUID NOT NULL,
    "project_id" UUID NOT NULL,
    "name" TEXT NOT NULL,
    "labels" JSONB NOT NULL DEFAULT '{}',
    "generation" INTEGER NOT NULL DEFAULT 1,
    "type" TEXT NOT NULL,
    "base64" TEXT NOT NULL,
    "comment" TEXT NOT NULL,
    "fingerprint" TEXT NOT NULL,
    "created_at" TIMESTAMPTZ(3) NOT NULL DEFAULT CURRENT_TIMESTAMP,
    "updated_at" TIMESTAMPTZ(3) NOT NULL,

    CONSTRAINT "ssh_key_pkey" PRIMARY KEY ("id")
);

-- CreateIndex
CREATE UNIQUE INDEX "ssh_key_project_id_name_key" ON "ssh_key"("project_id", "name");

-- AddForeignKey
ALTER TABLE "vm_seed" ADD CONSTRAINT "vm_seed_vm_id_fkey" FOREIGN KEY ("vm_id") REFERENCES "vm"("id") ON DELETE CASCADE ON UPDATE CASCADE;

-- AddForeignKey
ALTER TABLE "ssh_key" ADD CONSTRAINT "ssh_key_project_id_fkey" FOREIGN KEY ("project_id") REFERENCES "project"("id") ON DELETE RESTRICT ON UPDATE CASCADE;
