package node

import (
	"log/slog"
	"sync/atomic"
)

// keptRoom is how many bytes of a disk of any size are more than enough for replicas that nobody has asked for.
const keptRoom = 32 << 30

// roomWatch knows whether the disk of this node has room for replicas that nobody has asked for: those of topics that
// follow the size of the cluster, and those in the place of others on nodes that were removed. A disk that becomes full takes
// no more records at all, so they leave a tenth of it.
type roomWatch struct {
	isShort atomic.Bool
}

// look asks for the free room, tells the operator when it begins or ceases to be too little, and returns true if it is. If
// it is not known, there is room.
func (w *roomWatch) look(log *slog.Logger, free func() (avail, total int64, err error)) (isShort bool) {
	avail, total, err := free()
	least := min(total/10, keptRoom)
	isShort = err == nil && avail < least
	switch was := w.isShort.Swap(isShort); {
	case isShort && !was:
		log.Warn("the disk has little room: this node gets no more replicas by itself, only those that somebody asks for", "free", avail, "least", least)
	case !isShort && was:
		log.Info("the disk has room for more replicas again", "free", avail)
	}
	return isShort
}
