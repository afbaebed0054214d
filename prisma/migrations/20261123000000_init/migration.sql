-- Written by `prisma migrate diff`, but for the parts marked "By hand".

-- By hand: order of operations is drawn after their subjects are locked, from a sequence of its own.
CREATE SEQUENCE "operation_seq" AS BIGINT;

-- CreateTable
CREATE TABLE "installation" (
    "id" UUID NOT NULL,
    "secret_key_check" BYTEA NOT NULL,
    "created_at" TIMESTAMPTZ(3) NOT NULL DEFAULT CURRENT_TIMESTAMP,

    CONSTRAINT "installation_pkey" PRIMARY KEY ("id")
);

-- CreateTable
CREATE TABLE "project" (
    "id" UUID NOT NULL,
    "name" TEXT NOT NULL,
    "created_at" TIMESTAMPTZ(3) NOT NULL DEFAULT CURRENT_TIMESTAMP,

    CONSTRAINT "project_pkey" PRIMARY KEY ("id")
);

-- CreateTable
CREATE TABLE "api_token" (
    "id" UUID NOT NULL,
    "name" TEXT NOT NULL,
    "project_id" UUID,
    "secret_hash" BYTEA NOT NULL,
    "created_at" TIMESTAMPTZ(3) NOT NULL DEFAULT CURRENT_TIMESTAMP,
    "expires_at" TIMESTAMPTZ(3),
    "last_used_at" TIMESTAMPTZ(3),
    "revoked_at" TIMESTAMPTZ(3),

    CONSTRAINT "api_token_pkey" PRIMARY KEY ("id")
);

-- CreateTable
CREATE TABLE "worker" (
    "id" UUID NOT NULL,
    "hostname" TEXT NOT NULL,
    "pid" INTEGER NOT NULL,
    "started_at" TIMESTAMPTZ(3) NOT NULL DEFAULT CURRENT_TIMESTAMP,
    "lease_expires_at" TIMESTAMPTZ(3) NOT NULL,
    "sends_until" TIMESTAMPTZ(3) NOT NULL,
    "draining" BOOLEAN NOT NULL DEFAULT false,
    "lock_key" BIGSERIAL NOT NULL,

    CONSTRAINT "worker_pkey" PRIMARY KEY ("id")
);

-- CreateTable
CREATE TABLE "host" (
    "id" UUID NOT NULL,
    "name" TEXT NOT NULL,
    "uri" TEXT NOT NULL,
    "driver" TEXT NOT NULL,
    "hypervisor" TEXT NOT NULL,
    "credentials" BYTEA,
    "accelerator" TEXT NOT NULL DEFAULT 'auto',
    "labels" JSONB NOT NULL DEFAULT '{}',
    "generation" INTEGER NOT NULL DEFAULT 1,
    "schedulable" BOOLEAN NOT NULL DEFAULT true,
    "state" TEXT NOT NULL DEFAULT 'connecting',
    "error" JSONB,
    "host_uuid" TEXT,
    "facts" JSONB,
    "cpu_count" INTEGER,
    "memory_mib" INTEGER,
    "reserve_memory_mib" INTEGER NOT NULL DEFAULT 512,
    "reserve_cpu_count" INTEGER NOT NULL DEFAULT 0,
    "cpu_overcommit" DOUBLE PRECISION NOT NULL DEFAULT 4,
    "memory_overcommit" DOUBLE PRECISION NOT NULL DEFAULT 1,
    "unmanaged_memory_mib" INTEGER NOT NULL DEFAULT 0,
    "unmanaged_cpu_count" INTEGER NOT NULL DEFAULT 0,
    "owner_id" UUID,
    "epoch" BIGINT NOT NULL DEFAULT 0,
    "inventory_seq" BIGINT NOT NULL DEFAULT 0,
    "inventory_at" TIMESTAMPTZ(3),
    "last_seen_at" TIMESTAMPTZ(3),
    "created_at" TIMESTAMPTZ(3) NOT NULL DEFAULT CURRENT_TIMESTAMP,
    "updated_at" TIMESTAMPTZ(3) NOT NULL,

    CONSTRAINT "host_pkey" PRIMARY KEY ("id")
);

-- CreateTable
CREATE TABLE "host_network" (
    "id" UUID NOT NULL,
    "host_id" UUID NOT NULL,
    "name" TEXT NOT NULL,
    "uuid" TEXT,
    "active" BOOLEAN NOT NULL,
    "bridge" TEXT,
    "mode" TEXT NOT NULL,
    "inventory_seq" BIGINT NOT NULL,
    "observed_at" TIMESTAMPTZ(3) NOT NULL,

    CONSTRAINT "host_network_pkey" PRIMARY KEY ("id")
);

-- CreateTable
CREATE TABLE "host_pool" (
    "id" UUID NOT NULL,
    "host_id" UUID NOT NULL,
    "name" TEXT NOT NULL,
    "uuid" TEXT,
    "active" BOOLEAN NOT NULL,
    "type" TEXT NOT NULL,
    "path" TEXT,
    "capacity_bytes" BIGINT NOT NULL,
    "available_bytes" BIGINT NOT NULL,
    "inventory_seq" BIGINT NOT NULL,
    "observed_at" TIMESTAMPTZ(3) NOT NULL,

    CONSTRAINT "host_pool_pkey" PRIMARY KEY ("id")
);

-- CreateTable
CREATE TABLE "vm" (
    "id" UUID NOT NULL,
    "project_id" UUID NOT NULL,
    "name" TEXT NOT NULL,
    "labels" JSONB NOT NULL DEFAULT '{}',
    "spec" JSONB NOT NULL,
    "generation" INTEGER NOT NULL DEFAULT 1,
    "phase" TEXT NOT NULL,
    "power" TEXT NOT NULL DEFAULT 'unknown',
    "power_reason" TEXT,
    "host_id" UUID,
    "domain_uuid" UUID,
    "domain_name" TEXT,
    "hypervisor" TEXT,
    "guest_type" TEXT,
    "pool" TEXT,
    "observed_at" TIMESTAMPTZ(3),
    "observed_generation" INTEGER,
    "addresses" JSONB NOT NULL DEFAULT '[]',
    "conditions" JSONB NOT NULL DEFAULT '[]',
    "created_at" TIMESTAMPTZ(3) NOT NULL DEFAULT CURRENT_TIMESTAMP,
    "updated_at" TIMESTAMPTZ(3) NOT NULL,

    CONSTRAINT "vm_pkey" PRIMARY KEY ("id")
);

-- CreateTable
CREATE TABLE "reservation" (
    "vm_id" UUID NOT NULL,
    "host_id" UUID NOT NULL,
    "cpu_count" INTEGER NOT NULL,
    "memory_mib" INTEGER NOT NULL,
    "created_at" TIMESTAMPTZ(3) NOT NULL DEFAULT CURRENT_TIMESTAMP,

    CONSTRAINT "reservation_pkey" PRIMARY KEY ("vm_id")
);

-- CreateTable
CREATE TABLE "vm_nic" (
    "vm_id" UUID NOT NULL,
    "name" TEXT NOT NULL,
    "position" INTEGER NOT NULL,
    "network" TEXT NOT NULL,
    "mac_address" TEXT NOT NULL,

    CONSTRAINT "vm_nic_pkey" PRIMARY KEY ("vm_id","name")
);

-- CreateTable
CREATE TABLE "vm_image" (
    "vm_id" UUID NOT NULL,
    "role" TEXT NOT NULL,
    "image_id" UUID NOT NULL,

    CONSTRAINT "vm_image_pkey" PRIMARY KEY ("vm_id","role")
);

-- CreateTable
CREATE TABLE "volume" (
    "id" UUID NOT NULL,
    "project_id" UUID NOT NULL,
    "vm_id" UUID,
    "host_id" UUID NOT NULL,
    "pool" TEXT NOT NULL,
    "name" TEXT NOT NULL,
    "role" TEXT NOT NULL,
    "position" INTEGER NOT NULL DEFAULT 0,
    "format" TEXT NOT NULL,
    "capacity_bytes" BIGINT NOT NULL,
    "state" TEXT NOT NULL DEFAULT 'planned',
    "created_at" TIMESTAMPTZ(3) NOT NULL DEFAULT CURRENT_TIMESTAMP,

    CONSTRAINT "volume_pkey" PRIMARY KEY ("id")
);

-- CreateTable
CREATE TABLE "image" (
    "id" UUID NOT NULL,
    "project_id" UUID NOT NULL,
    "name" TEXT NOT NULL,
    "labels" JSONB NOT NULL DEFAULT '{}',
    "generation" INTEGER NOT NULL DEFAULT 1,
    "kind" TEXT NOT NULL,
    "format" TEXT,
    "state" TEXT NOT NULL,
    "error" JSONB,
    "size_bytes" BIGINT,
    "virtual_size_bytes" BIGINT,
    "sha256" TEXT,
    "source_url" TEXT,
    "created_at" TIMESTAMPTZ(3) NOT NULL DEFAULT CURRENT_TIMESTAMP,
    "updated_at" TIMESTAMPTZ(3) NOT NULL,

    CONSTRAINT "image_pkey" PRIMARY KEY ("id")
);

-- CreateTable
CREATE TABLE "observed_domain" (
    "host_id" UUID NOT NULL,
    "domain_uuid" UUID NOT NULL,
    "name" TEXT NOT NULL,
    "power" TEXT NOT NULL,
    "reason" TEXT,
    "cpu_count" INTEGER NOT NULL,
    "memory_mib" INTEGER NOT NULL,
    "installation_id" TEXT,
    "vm_id" TEXT,
    "autostart" BOOLEAN NOT NULL,
    "inventory_seq" BIGINT NOT NULL,
    "observed_at" TIMESTAMPTZ(3) NOT NULL,

    CONSTRAINT "observed_domain_pkey" PRIMARY KEY ("host_id","domain_uuid")
);

-- CreateTable
CREATE TABLE "operation" (
    "id" UUID NOT NULL,
    "seq" BIGINT NOT NULL DEFAULT nextval('operation_seq'::regclass),
    "kind" TEXT NOT NULL,
    "state" TEXT NOT NULL,
    "project_id" UUID,
    "input" JSONB NOT NULL,
    "targets" JSONB NOT NULL,
    "wait_reason" JSONB,
    "priority" INTEGER NOT NULL DEFAULT 0,
    "turn" BIGINT NOT NULL,
    "actor" TEXT NOT NULL,
    "request_id" TEXT,
    "host_id" UUID,
    "hosts" JSONB NOT NULL DEFAULT '[]',
    "attempt" INTEGER NOT NULL DEFAULT 0,
    "not_before" TIMESTAMPTZ(3) NOT NULL DEFAULT CURRENT_TIMESTAMP,
    "deadline" TIMESTAMPTZ(3) NOT NULL,
    "cancel_asked_at" TIMESTAMPTZ(3),
    "cancel_reason" JSONB,
    "undoing" BOOLEAN NOT NULL DEFAULT false,
    "undo_deadline" TIMESTAMPTZ(3),
    "error" JSONB,
    "result" JSONB,
    "steps_total" INTEGER NOT NULL,
    "forward_only" BOOLEAN NOT NULL DEFAULT false,
    "overtakes" INTEGER NOT NULL DEFAULT 0,
    "worker_id" UUID,
    "token" UUID,
    "epoch" BIGINT,
    "created_at" TIMESTAMPTZ(3) NOT NULL DEFAULT CURRENT_TIMESTAMP,
    "started_at" TIMESTAMPTZ(3),
    "ended_at" TIMESTAMPTZ(3),

    CONSTRAINT "operation_pkey" PRIMARY KEY ("id")
);

-- CreateTable
CREATE TABLE "operation_subject" (
    "operation_id" UUID NOT NULL,
    "kind" TEXT NOT NULL,
    "subject_id" UUID NOT NULL,
    "mode" TEXT NOT NULL,
    "seq" BIGINT NOT NULL,
    "unfinished" BOOLEAN NOT NULL DEFAULT true,
    "active" BOOLEAN NOT NULL DEFAULT false,

    CONSTRAINT "operation_subject_pkey" PRIMARY KEY ("operation_id","kind","subject_id")
);

-- CreateTable
CREATE TABLE "operation_step" (
    "operation_id" UUID NOT NULL,
    "position" INTEGER NOT NULL,
    "name" TEXT NOT NULL,
    "state" TEXT NOT NULL,
    "attempts" INTEGER NOT NULL DEFAULT 1,
    "host_id" UUID,
    "found" JSONB,
    "result" JSONB,
    "progress" JSONB,
    "error" JSONB,
    "undo_error" JSONB,
    "undo_attempts" INTEGER NOT NULL DEFAULT 0,
    "started_at" TIMESTAMPTZ(3) NOT NULL,
    "ended_at" TIMESTAMPTZ(3),

    CONSTRAINT "operation_step_pkey" PRIMARY KEY ("operation_id","position")
);

-- CreateTable
CREATE TABLE "event" (
    "row_id" BIGSERIAL NOT NULL,
    "seq" BIGINT,
    "id" UUID NOT NULL,
    "type" TEXT NOT NULL,
    "at" TIMESTAMPTZ(3) NOT NULL DEFAULT CURRENT_TIMESTAMP,
    "project_id" UUID,
    "subject_kind" TEXT NOT NULL,
    "subject_id" UUID NOT NULL,
    "subject_name" TEXT,
    "operation_id" UUID,
    "data" JSONB NOT NULL DEFAULT '{}',

    CONSTRAINT "event_pkey" PRIMARY KEY ("row_id")
);

-- CreateTable
CREATE TABLE "idempotency_key" (
    "token_id" UUID NOT NULL,
    "project_id" UUID NOT NULL,
    "method" TEXT NOT NULL,
    "path" TEXT NOT NULL,
    "key" TEXT NOT NULL,
    "request_hash" BYTEA NOT NULL,
    "status" INTEGER NOT NULL,
    "body" JSONB NOT NULL,
    "headers" JSONB NOT NULL DEFAULT '{}',
    "operation_id" UUID,
    "created_at" TIMESTAMPTZ(3) NOT NULL DEFAULT CURRENT_TIMESTAMP,

    CONSTRAINT "idempotency_key_pkey" PRIMARY KEY ("token_id","project_id","method","path","key")
);

-- CreateIndex
CREATE UNIQUE INDEX "project_name_key" ON "project"("name");

-- CreateIndex
CREATE UNIQUE INDEX "api_token_secret_hash_key" ON "api_token"("secret_hash");

-- CreateIndex
CREATE UNIQUE INDEX "worker_lock_key_key" ON "worker"("lock_key");

-- CreateIndex
CREATE UNIQUE INDEX "host_name_key" ON "host"("name");

-- CreateIndex
CREATE UNIQUE INDEX "host_host_uuid_key" ON "host"("host_uuid");

-- CreateIndex
CREATE INDEX "host_owner_id_idx" ON "host"("owner_id");

-- CreateIndex
CREATE INDEX "host_network_name_idx" ON "host_network"("name");

-- CreateIndex
CREATE UNIQUE INDEX "host_network_host_id_name_key" ON "host_network"("host_id", "name");

-- CreateIndex
CREATE UNIQUE INDEX "host_pool_host_id_name_key" ON "host_pool"("host_id", "name");

-- CreateIndex
CREATE UNIQUE INDEX "vm_domain_uuid_key" ON "vm"("domain_uuid");

-- CreateIndex
CREATE INDEX "vm_host_id_idx" ON "vm"("host_id");

-- CreateIndex
CREATE INDEX "vm_project_id_created_at_id_idx" ON "vm"("project_id", "created_at", "id");

-- CreateIndex
CREATE INDEX "vm_labels_idx" ON "vm" USING GIN ("labels" jsonb_path_ops);

-- CreateIndex
CREATE UNIQUE INDEX "vm_project_id_name_key" ON "vm"("project_id", "name");

-- CreateIndex
CREATE INDEX "reservation_host_id_idx" ON "reservation"("host_id");

-- CreateIndex
CREATE UNIQUE INDEX "vm_nic_mac_address_key" ON "vm_nic"("mac_address");

-- CreateIndex
CREATE INDEX "vm_image_image_id_idx" ON "vm_image"("image_id");

-- CreateIndex
CREATE INDEX "volume_vm_id_idx" ON "volume"("vm_id");

-- CreateIndex
CREATE UNIQUE INDEX "volume_host_id_pool_name_key" ON "volume"("host_id", "pool", "name");

-- CreateIndex
CREATE INDEX "image_sha256_idx" ON "image"("sha256");

-- CreateIndex
CREATE UNIQUE INDEX "image_project_id_name_key" ON "image"("project_id", "name");

-- CreateIndex
CREATE UNIQUE INDEX "operation_seq_key" ON "operation"("seq");

-- CreateIndex
CREATE INDEX "operation_project_id_created_at_id_idx" ON "operation"("project_id", "created_at", "id");

-- CreateIndex
CREATE INDEX "operation_created_at_id_idx" ON "operation"("created_at", "id");

-- CreateIndex
CREATE INDEX "operation_subject_subject_id_seq_idx" ON "operation_subject"("subject_id", "seq");

-- CreateIndex
CREATE UNIQUE INDEX "event_seq_key" ON "event"("seq");

-- CreateIndex
CREATE UNIQUE INDEX "event_id_key" ON "event"("id");

-- CreateIndex
CREATE INDEX "event_subject_kind_subject_id_seq_idx" ON "event"("subject_kind", "subject_id", "seq");

-- CreateIndex
CREATE INDEX "idempotency_key_created_at_idx" ON "idempotency_key"("created_at");

-- AddForeignKey
ALTER TABLE "api_token" ADD CONSTRAINT "api_token_project_id_fkey" FOREIGN KEY ("project_id") REFERENCES "project"("id") ON DELETE RESTRICT ON UPDATE CASCADE;

-- AddForeignKey
ALTER TABLE "host_network" ADD CONSTRAINT "host_network_host_id_fkey" FOREIGN KEY ("host_id") REFERENCES "host"("id") ON DELETE CASCADE ON UPDATE CASCADE;

-- AddForeignKey
ALTER TABLE "host_pool" ADD CONSTRAINT "host_pool_host_id_fkey" FOREIGN KEY ("host_id") REFERENCES "host"("id") ON DELETE CASCADE ON UPDATE CASCADE;

-- AddForeignKey
ALTER TABLE "vm" ADD CONSTRAINT "vm_project_id_fkey" FOREIGN KEY ("project_id") REFERENCES "project"("id") ON DELETE RESTRICT ON UPDATE CASCADE;

-- AddForeignKey
ALTER TABLE "vm" ADD CONSTRAINT "vm_host_id_fkey" FOREIGN KEY ("host_id") REFERENCES "host"("id") ON DELETE RESTRICT ON UPDATE CASCADE;

-- AddForeignKey
ALTER TABLE "reservation" ADD CONSTRAINT "reservation_vm_id_fkey" FOREIGN KEY ("vm_id") REFERENCES "vm"("id") ON DELETE CASCADE ON UPDATE CASCADE;

-- AddForeignKey
ALTER TABLE "reservation" ADD CONSTRAINT "reservation_host_id_fkey" FOREIGN KEY ("host_id") REFERENCES "host"("id") ON DELETE RESTRICT ON UPDATE CASCADE;

-- AddForeignKey
ALTER TABLE "vm_nic" ADD CONSTRAINT "vm_nic_vm_id_fkey" FOREIGN KEY ("vm_id") REFERENCES "vm"("id") ON DELETE CASCADE ON UPDATE CASCADE;

-- AddForeignKey
ALTER TABLE "vm_image" ADD CONSTRAINT "vm_image_vm_id_fkey" FOREIGN KEY ("vm_id") REFERENCES "vm"("id") ON DELETE CASCADE ON UPDATE CASCADE;

-- AddForeignKey
ALTER TABLE "vm_image" ADD CONSTRAINT "vm_image_image_id_fkey" FOREIGN KEY ("image_id") REFERENCES "image"("id") ON DELETE RESTRICT ON UPDATE CASCADE;

-- AddForeignKey
ALTER TABLE "volume" ADD CONSTRAINT "volume_project_id_fkey" FOREIGN KEY ("project_id") REFERENCES "project"("id") ON DELETE RESTRICT ON UPDATE CASCADE;

-- AddForeignKey
ALTER TABLE "volume" ADD CONSTRAINT "volume_vm_id_fkey" FOREIGN KEY ("vm_id") REFERENCES "vm"("id") ON DELETE RESTRICT ON UPDATE CASCADE;

-- AddForeignKey
ALTER TABLE "volume" ADD CONSTRAINT "volume_host_id_fkey" FOREIGN KEY ("host_id") REFERENCES "host"("id") ON DELETE RESTRICT ON UPDATE CASCADE;

-- AddForeignKey
ALTER TABLE "image" ADD CONSTRAINT "image_project_id_fkey" FOREIGN KEY ("project_id") REFERENCES "project"("id") ON DELETE RESTRICT ON UPDATE CASCADE;

-- AddForeignKey
ALTER TABLE "observed_domain" ADD CONSTRAINT "observed_domain_host_id_fkey" FOREIGN KEY ("host_id") REFERENCES "host"("id") ON DELETE CASCADE ON UPDATE CASCADE;

-- AddForeignKey
ALTER TABLE "operation" ADD CONSTRAINT "operation_project_id_fkey" FOREIGN KEY ("project_id") REFERENCES "project"("id") ON DELETE RESTRICT ON UPDATE CASCADE;

-- AddForeignKey
ALTER TABLE "operation_subject" ADD CONSTRAINT "operation_subject_operation_id_fkey" FOREIGN KEY ("operation_id") REFERENCES "operation"("id") ON DELETE CASCADE ON UPDATE CASCADE;

-- AddForeignKey
ALTER TABLE "operation_step" ADD CONSTRAINT "operation_step_operation_id_fkey" FOREIGN KEY ("operation_id") REFERENCES "operation"("id") ON DELETE CASCADE ON UPDATE CASCADE;

-- By hand from here on: what schema.prisma asks for in its lines that begin with "SQL:".

ALTER SEQUENCE "operation_seq" OWNED BY "operation"."seq";

-- A revoked token frees its name.
CREATE UNIQUE INDEX "api_token_name_key" ON "api_token"("name") WHERE "revoked_at" IS NULL;

-- The claim looks at what may run only, however long the history grows.
CREATE INDEX "operation_claim_idx" ON "operation"("host_id", "priority" DESC, "turn")
  WHERE "ended_at" IS NULL AND "token" IS NULL AND "state" <> 'blocked';

-- How much an actor has queued, for its turn.
CREATE INDEX "operation_actor_idx" ON "operation"("actor") WHERE "ended_at" IS NULL;

-- The backstop that promotes, the one that gives up, and the retention.
CREATE INDEX "operation_blocked_idx" ON "operation"("seq") WHERE "state" = 'blocked';
CREATE INDEX "operation_deadline_idx" ON "operation"((CASE WHEN "undoing" THEN "undo_deadline" ELSE "deadline" END))
  WHERE "ended_at" IS NULL;
CREATE INDEX "operation_ended_idx" ON "operation"("ended_at") WHERE "ended_at" IS NOT NULL;

-- What a worker runs now: its reaper and its drain.
CREATE INDEX "operation_running_idx" ON "operation"("worker_id") WHERE "token" IS NOT NULL;

-- A lane: what is unfinished on one subject, in order.
CREATE INDEX "operation_subject_lane_idx" ON "operation_subject"("kind", "subject_id", "seq") WHERE "unfinished";

-- The law behind the lanes: one exclusive operation at most acts on a subject.
CREATE UNIQUE INDEX "operation_subject_exclusive_key" ON "operation_subject"("kind", "subject_id")
  WHERE "unfinished" AND "active" AND "mode" = 'exclusive';

-- The sequencer's work list.
CREATE INDEX "event_unnumbered_idx" ON "event"("row_id") WHERE "seq" IS NULL;
