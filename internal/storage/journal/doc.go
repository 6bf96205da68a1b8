// Package journal keeps a ring of files into which a store writes the appends of all its
// logs, so that one sync makes them durable. Journal is the ring, Image is a write before it
// is written, Part is a piece of it: bytes of a segment, or a note about a log.
//
// All blocks of a file are written when the ring is made complete (Fill), so that a later
// sync changes no metadata of the file system. A write consists of rounds, each of which is,
// in big endian, with the position of each line and the bytes of each field:
//
//	 0  "LJ" (2), version 1 (2)
//	 4  checksum, CRC-32C, of bytes 8 to 64 (4)
//	 8  journal id (16)
//	24  number of the round (8)
//	32  checksum of the head of the round before (4)
//	36  checksum of the checksums of the parts' heads (4)
//	40  length of the parts (4), flags (1), zeros up to byte 64
//	64  parts, then zeros up to a multiple of 4096
//
// and a part is:
//
//	 0  kind (1), zero (1), length of the directory's name (2), partition (4), topic id (16)
//	24  segment's base offset (8), position in it (8), offset (8)
//	48  length of the data (4), checksum of the data (4)
//	56  checksum of bytes 0 to 56 and of the name (4)
//	60  the directory's name, then the data
//
// A scan ignores rounds of other versions. That is safe since the checkpoint's version is
// also the version of the rounds: a program that writes rounds of a new kind has saved a
// checkpoint of a new version before, which older programs refuse.
//
// A round is part of the journal if it follows the round before it by number, id and
// checksum. So a scan never confuses the next round with a round of an earlier lap, or with
// one that an earlier run of the process wrote but never acknowledged.
//
// A batch may begin in one round of a write and end in the next, and the flags say which
// rounds are of one write. If a power cut has lost a round of a write, no round of it is played back.
//
// The next write begins only after a sync of the one before it. So if a round cannot be read
// and a round of a later write is found, the first one is damaged, and the journal does not end there. Scan
// reports it, and goes on after it.
//
// A Journal is in one of four states:
//
//	        Start, Resume        AllowWrites           a write or a sync fails
//	opened --------------> ready ------------> writable ----------------------> lost
//
// A lost journal accepts no more writes in this process, since it is unknown which bytes of
// the last write are on disk. It can still be read.
//
// One goroutine at a time may call Write. After Resume or Start, any goroutine may call the
// other methods. Journal.mu is held only for moments, never during input and output.
package journal
