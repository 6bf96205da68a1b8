// Package record is Kafka's record batch, format v2 (KIP-98). It reads, checks, builds
// and compresses batches, and knows nothing of files or sockets.
//
// Batch is a view of the bytes of one batch, and Next cuts the first one off a
// buffer. Check and CheckRecords check a batch that a client has sent, Reader iterates
// over the records of any batch, Builder makes batches, and Recompress encodes a batch
// with another codec. VisitKeys reads only the keys, and Rewrite leaves records out: both are
// for compaction, and need little memory however large the records are.
//
// A batch, big endian; the number in front is the position of the field:
//
//	 0 base offset (8) | 8 length of what follows (4) | 12 leader epoch (4)
//	16 magic = 2 (1)   | 17 CRC-32C of the bytes from 21 to the end (4)
//	21 attributes (2)  | 23 last offset delta (4)     | 27 base timestamp (8)
//	35 max timestamp (8) | 43 producer id (8) | 51 producer epoch (2)
//	53 base sequence (4) | 57 number of records (4)   | 61 records ...
//
// Attributes:
//
//	bit  15 ........ 7 |      6      |    5    |       4       |        3        | 2 1 0
//	     0 (reserved)  | del.horizon | control | transactional | log append time | codec
//
// A record; the records of a batch are compressed together. v is a zigzag varint:
//
//	length v | attributes = 0 (1) | timestamp delta v | offset delta v
//	key length v (-1: null) | key | value length v (-1: null) | value
//	number of headers v | { key length v | key | value length v (-1: null) | value }...
//
// The checksum does not cover base offset and leader epoch, so that a broker sets them
// without computing it.
//
// A Batch may be read by many goroutines at once while none of them sets a field. A
// Reader and a Builder belong to one goroutine at a time. Encoders and decoders come
// from pools that the garbage collector empties; none of them has a goroutine, and
// those that have grown large do not go back into the pool.
package record
