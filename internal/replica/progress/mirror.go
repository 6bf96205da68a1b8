package progress

import "github.com/leatstream/leat/internal/record"

// TailOfMirror is the answer of a leader's log that mirrors the partition of another cluster, for the epoch of another log's last record.
// tail is what the log itself answers, last the epoch of its last record (NoEpoch: it has none), and end its end. Such a log has not begun
// the epoch of its leader, so it knows nothing of an epoch that is above its last one. But the leader has none of those records: its last
// epoch ends at its end for good, as it would if the leader's epoch began there.
//
// Two leaders that have each appended records of one epoch of the source have appended the same ones. So a log that does not end beyond
// the leader's, in one epoch, has not parted from it.
func TailOfMirror(asked record.Epoch, tail Tail, last record.Epoch, end record.Offset) Tail {
	if tail.Epoch == record.NoEpoch && last != record.NoEpoch && asked > last {
		return Tail{Epoch: last, End: end}
	}
	return tail
}
