-- AlterTable
ALTER TABLE "vm" ADD COLUMN     "agent_state" TEXT;

-- CreateTable
CREATE TABLE "vm_agent" (
    "vm_id" UUID NOT NULL,
    "host_name" TEXT,
    "os_name" TEXT,
    "kernel_release" TEXT,
    "addresses" JSONB NOT NULL DEFAULT '[]',
    "error" TEXT,
    "told_at" TIMESTAMPTZ(3),

    CONSTRAINT "vm_agent_pkey" PRIMARY KEY ("vm_id")
);

-- AddForeignKey
ALTER TABLE "vm_agent" ADD CONSTRAINT "vm_agent_vm_id_fkey" FOREIGN KEY ("vm_id") REFERENCES "vm"("id") ON DELETE CASCADE ON UPDATE CASCADE;
