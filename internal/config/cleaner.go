package config

import "time"

// Cleaner are the settings of the compaction of logs.
type Cleaner struct {
	Enabled        bool
	MapBytes       int64   // for the keys of a round
	BytesPerSecond float64 // that are read and written
	Backoff        time.Duration
}

func readCleaner(r configReader) Cleaner {
	rate, _ := r.readValue("log.cleaner.io.max.bytes.per.second")
	return Cleaner{
		Enabled: r.readBool("log.cleaner.enable"), MapBytes: r.readInt("log.cleaner.dedupe.buffer.size"),
		BytesPerSecond: rate.f, Backoff: r.readMillis("log.cleaner.backoff.ms"),
	}
}
