package workload

import (
	"bytes"
	"encoding/json"
	"regexp"
	"strconv"
	"strings"
	"time"
)

// cleanings is what a broker's log tells of the compaction of one partition.
type cleanings struct {
	rounds int
	took   time.Duration // all rounds
	upTo   int64         // the offset up to which the partition is compacted
}

// kafkaCleaned is what Apache Kafka's cleaner writes about a round.
var kafkaCleaned = regexp.MustCompile(`cleaned log (\S+) \(dirty section = \[\d+, (\d+)\]\)\s+[\d.,]+ MB of log processed in ([\d.,]+) seconds`)

// findCleanings finds in the output of Leat or of Apache Kafka what it tells of a partition, which is called
// TOPIC-NUMBER.
func findCleanings(output []byte, partition string) (c cleanings) {
	for line := range bytes.Lines(output) {
		var said struct {
			Msg  string `json:"msg"`
			Log  string `json:"log"`
			To   int64  `json:"to"`
			Took string `json:"took"`
		}
		if !bytes.HasPrefix(line, []byte("{")) || json.Unmarshal(line, &said) != nil || said.Msg != "a log was compacted" || said.Log != partition {
			continue
		}
		if took, err := time.ParseDuration(said.Took); err == nil {
			c.add(said.To, took)
		}
	}
	for _, m := range kafkaCleaned.FindAllStringSubmatch(string(output), -1) {
		to, err := strconv.ParseInt(m[2], 10, 64)
		seconds, err2 := strconv.ParseFloat(strings.ReplaceAll(m[3], ",", ""), 64)
		if m[1] == partition && err == nil && err2 == nil {
			c.add(to, time.Duration(seconds*float64(time.Second)))
		}
	}
	return c
}

func (c *cleanings) add(upTo int64, took time.Duration) {
	c.rounds++
	c.took += took
	c.upTo = max(c.upTo, upTo)
}
