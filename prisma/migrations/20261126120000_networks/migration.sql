-- CreateTable
CREATE TABLE "network" (
    "id" UUID NOT NULL,
    "project_id" UUID NOT NULL,
    "name" TEXT NOT NULL,
    "labels" JSONB NOT NULL DEFAULT '{}',
    "generation" INTEGER NOT NULL DEFAULT 1,
    "kind" TEXT NOT NULL,
    "state" TEXT NOT NULL DEFAULT 'ready',
    "ipv4_cidr" INET,
    "ipv4_gateway" INET,
    "ipv4_range_start" INET,
    "ipv4_range_end" INET,
    "ipv6_cidr" INET,
    "ipv6_gateway" INET,
    "bridge" TEXT,
    "vlan" INTEGER,
    "host_labels" JSONB,
    "created_at" TIMESTAMPTZ(3) NOT NULL DEFAULT CURRENT_TIMESTAMP,
    "updated_at" TIMESTAMPTZ(3) NOT NULL,

    CONSTRAINT "network_pkey" PRIMARY KEY ("id")
);

-- CreateTable
CREATE TABLE "network_host" (
    "network_id" UUID NOT NULL,
    "host_id" UUID NOT NULL,
    "created_at" TIMESTAMPTZ(3) NOT NULL DEFAULT CURRENT_TIMESTAMP,

    CONSTRAINT "network_host_pkey" PRIMARY KEY ("network_id","host_id")
);

-- CreateTable
CREATE TABLE "network_address" (
    "network_id" UUID NOT NULL,
    "address" INET NOT NULL,
    "vm_id" UUID NOT NULL,
    "nic_name" TEXT NOT NULL,
    "created_at" TIMESTAMPTZ(3) NOT NULL DEFAULT CURRENT_TIMESTAMP,

    CONSTRAINT "network_address_pkey" PRIMARY KEY ("network_id","address")
);

-- AlterTable
ALTER TABLE "vm_nic" ADD COLUMN "network_id" UUID,
ADD COLUMN "attached" BOOLEAN NOT NULL DEFAULT true,
ADD COLUMN "allow_spoofing" BOOLEAN NOT NULL DEFAULT true;

-- Guests that are there already go on as they were defined. New ones are guarded unless they say otherwise.
ALTER TABLE "vm_nic" ALTER COLUMN "allow_spoofing" SET DEFAULT false;

-- CreateIndex
CREATE UNIQUE INDEX "network_project_id_name_key" ON "network"("project_id", "name");

-- CreateIndex
CREATE INDEX "network_host_host_id_idx" ON "network_host"("host_id");

-- CreateIndex
CREATE INDEX "network_address_vm_id_nic_name_idx" ON "network_address"("vm_id", "nic_name");

-- CreateIndex
CREATE INDEX "vm_nic_network_id_idx" ON "vm_nic"("network_id");

-- AddForeignKey
ALTER TABLE "network" ADD CONSTRAINT "network_project_id_fkey" FOREIGN KEY ("project_id") REFERENCES "project"("id") ON DELETE RESTRICT ON UPDATE CASCADE;

-- AddForeignKey
ALTER TABLE "network_host" ADD CONSTRAINT "network_host_network_id_fkey" FOREIGN KEY ("network_id") REFERENCES "network"("id") ON DELETE RESTRICT ON UPDATE CASCADE;

-- AddForeignKey
ALTER TABLE "network_host" ADD CONSTRAINT "network_host_host_id_fkey" FOREIGN KEY ("host_id") REFERENCES "host"("id") ON DELETE RESTRICT ON UPDATE CASCADE;

-- AddForeignKey
ALTER TABLE "network_address" ADD CONSTRAINT "network_address_network_id_fkey" FOREIGN KEY ("network_id") REFERENCES "network"("id") ON DELETE RESTRICT ON UPDATE CASCADE;

-- AddForeignKey
ALTER TABLE "network_address" ADD CONSTRAINT "network_address_vm_id_nic_name_fkey" FOREIGN KEY ("vm_id", "nic_name") REFERENCES "vm_nic"("vm_id", "name") ON DELETE CASCADE ON UPDATE CASCADE;

-- AddForeignKey
ALTER TABLE "vm_nic" ADD CONSTRAINT "vm_nic_network_id_fkey" FOREIGN KEY ("network_id") REFERENCES "network"("id") ON DELETE RESTRICT ON UPDATE CASCADE;

-- Two networks that a host may have at once cannot have one subnet: the host itself has an address in each.
ALTER TABLE "network" ADD CONSTRAINT "network_ipv4_apart" EXCLUDE USING gist ("ipv4_cidr" inet_ops WITH &&) WHERE (kind <> 'bridged');
ALTER TABLE "network" ADD CONSTRAINT "network_ipv6_apart" EXCLUDE USING gist ("ipv6_cidr" inet_ops WITH &&) WHERE (kind <> 'bridged');
