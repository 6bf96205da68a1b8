// Package record is Kafka's record batch, format v2 (KIP-98): it views, checks,
// iterates, builds and compresses batches and knows nothing of files or sockets.
//
// Batch is a view of the bytes of one batch, Next cuts the first one off a
// stream. Check and CheckRecords judge a batch from a client, Reader iterates
// over the records of any batch, Builder makes batches, Recompress re-encodes
// one with another codec.
//
// A batch, big endian; the number is where the field begins:
//
//	 0 base offset (8) | 8 length of what follows (4) | 12 leader epoch (4)
//	16 magic = 2 (1)   | 17 CRC-32C of 21 to the end (4)
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
// Base offset and leader epoch lie outside the checksum, so that a broker stamps
// them without touching it.
//
// A Batch may be read by many goroutines at once while nobody sets a field. A
// Reader and a Builder belong to one goroutine at a time. Compressors and
// decompressors come from pools that the garbage collector empties; none of them
// keeps a goroutine, and those that have grown large are not kept.
package record
