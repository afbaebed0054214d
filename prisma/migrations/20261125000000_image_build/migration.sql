-- AlterTable
ALTER TABLE "image" ADD COLUMN     "build" JSONB;
