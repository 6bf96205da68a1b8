// Floor is not a broker but the least that a broker must do for its bytes: it
// receives Produce requests, checks the checksum of each batch, sets its offset
// and writes it to one file a partition, and it answers Fetch requests from that
// file. What it costs is the floor that a real broker is measured against. It
// forgets everything when it ends, checks nothing that a client sends, and runs
// on Linux only.
//
//	floor -addr 127.0.0.1:9092 -dir D
//	  -store discard|file   receive and answer only, or write
//	  -ring N               MiB that a partition's file holds before it starts over (0: it grows):
//	  -recycle              on the blocks that it has (else on a new file)
//	  -sync                 fdatasync before the answer, one for all that a read brought
//	  -journal N            the same for all partitions by one write into a ring of N MiB
//	  -serve how            records leave: pread, sendfile, or auto, the cheaper one for their size
//	  -io thread|poll       a blocking thread for each connection, or Go's poller
//	  -cc NAME              TCP_CONGESTION of accepted connections
//
// Each connection has a goroutine. A partition's mutex guards its file and its
// index. Connections that produce to one partition at the same time are not
// served in the order of their offsets, so give each partition one of them.
package main

import (
	"flag"
	"fmt"
	"os"
)

func main() {
	var cfg config
	flag.StringVar(&cfg.addr, "addr", "127.0.0.1:9092", "address to listen on")
	flag.StringVar(&cfg.dir, "dir", ".", "directory of the partitions' files")
	flag.StringVar(&cfg.store, "store", "file", "discard or file")
	flag.Int64Var(&cfg.ring, "ring", 0, "MiB that a partition's file holds before it starts over (0: it grows)")
	flag.BoolVar(&cfg.recycle, "recycle", false, "start over on the same blocks")
	flag.BoolVar(&cfg.allocate, "allocate", false, "reserve a new file's blocks at once")
	flag.BoolVar(&cfg.sync, "sync", false, "fdatasync before the answer")
	flag.Int64Var(&cfg.journal, "journal", 0, "MiB of a journal that makes all partitions' records durable by one write (0: none)")
	flag.StringVar(&cfg.serve, "serve", "auto", "auto, pread or sendfile")
	flag.StringVar(&cfg.io, "io", "thread", "thread or poll")
	flag.IntVar(&cfg.buffer, "buffer", 512, "KiB of a connection's receive buffer")
	flag.StringVar(&cfg.congestion, "cc", "reno", "TCP_CONGESTION of accepted connections")
	flag.Parse()
	if err := run(&cfg); err != nil {
		fmt.Fprintln(os.Stderr, "floor:", err)
		os.Exit(1) //nolint:forbidigo // this is a main
	}
}

// config is the flags.
type config struct {
	addr, dir, store, serve, io, congestion string
	ring, journal                           int64
	recycle, allocate, sync                 bool
	buffer                                  int
}
