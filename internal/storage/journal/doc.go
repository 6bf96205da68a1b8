// Package journal keeps a ring of files into which a store writes the appends of all its
// logs, so that one sync makes them durable. Journal is the ring, Image is a write in the
// making, Part is a piece of it: bytes of a segment, or a note about a log.
//
// The files' blocks were written before, so that a sync of new bytes in them changes no
// metadata of the file system. A write consists of rounds, each of which is, in big endian:
//
//	0   magic "LJ", version 2
//	4   checksum (CRC-32C) of the bytes from 8 to 64 4
//	8   journal id 16
//	24  number 8
//	32  checksum of the head of the round before 4
//	36  checksum of the checksums of the parts' heads 4
//	40  length of the parts 4, flags 1, zeros to 64
//	64  parts
//	    zeros to a multiple of 4096
//
// and a part is:
//
//	0   kind 1, zero 1, length of the directory's name 2, partition 4, topic id 16
//	24  segment's base offset 8, position in it 8, offset 8
//	48  length of the data 4, checksum of the data 4
//	56  checksum of the bytes from 0 to 56 and of the name 4
//	60  the directory's name, the data
//
// A round of another version is no round. That is safe since the checkpoint's version is the
// version of the rounds, too: a program that writes rounds of a new kind has saved a
// checkpoint of a new version before, which older programs refuse.
//
// A round is part of the journal if it follows from the one before it: by number, id and
// checksum. So a round of an earlier lap, or one that an earlier run of the process wrote
// but never acknowledged, is never taken for the next one.
//
// The rounds of one write belong together, as their flags say: a batch may begin in one
// and end in the next. Where a power cut took some of them, none is played back.
//
// A round that cannot be read where the next write is there is damage, not the journal's
// end: the next write begins only after a sync of the one before it. Scan then says so,
// and goes on behind it.
//
// A Journal is in one of three states:
//
//	        Start, Resume                a write or a sync fails
//	opened --------------> writable --------------------------------> lost
//
// A lost journal takes no more writes in this process: nobody knows what the disk has of
// the last one. What it has can be read still.
//
// Write is for one goroutine at a time; all other methods may be called at any time,
// after Resume or Start. Journal.mu is held for moments, never over input and output.
package journal
