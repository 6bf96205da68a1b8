package storage

import (
	"errors"
	"fmt"
	"sync"

	"github.com/leatstream/leat/internal/storage/aside"
	"github.com/leatstream/leat/internal/storage/checkpoint"
)

// losses has what recovery found to be lost, if it cannot tell which logs lost it. It is safe for
// concurrent use.
type losses struct {
	s *Store

	mu  sync.Mutex
	err error // guarded by mu; nil: nothing is lost
}

// describe is an error that describes the losses, or nil if there are none.
func (o *losses) describe() error {
	o.mu.Lock()
	defer o.mu.Unlock()
	return o.err
}

// errJournalDamaged is reported if the journal has lost rounds that were acknowledged.
var errJournalDamaged = errors.New("the journal was damaged, and records that were acknowledged just before the last stop may be missing")

// reportJournal tells the operator that rounds of the journal cannot be read.
func (o *losses) reportJournal(rounds int) {
	o.addLoss(errJournalDamaged)
	o.s.log.Error("the journal is damaged: records that were acknowledged just before the last stop may be missing; "+
		"check the disk, and compare with the producers' own records", "rounds", rounds)
}

func (o *losses) addLoss(err error) {
	o.mu.Lock()
	defer o.mu.Unlock()
	if o.err != nil {
		err = fmt.Errorf("%w; %w", o.err, err)
	}
	o.err = err
}

// journalOf is the id of the journal in the points file. It is zero if there is no points file.
func journalOf(base *checkpoint.Sheet) (id [16]byte) {
	if base != nil {
		id = base.Journal
	}
	return id
}

// errCheckpointsLost is reported if both checkpoint files are lost. Records are not lost by that,
// since the rounds of the journal are found without the files, and logs are checked whole.
var errCheckpointsLost = errors.New("both checkpoint files are damaged; no record is lost by that, but what only they had is: " +
	"starts that DeleteRecords set, so that deleted records may be back, high watermarks, " +
	"and up to which entry of the metadata log the directory was used, so that older metadata are not refused; " +
	"check the disk, see that the metadata (quorum directory) are the newest ones, and delete records again that must be gone")

// reportCheckpoints tells the operator that both checkpoint files are lost. It marks the points of
// all logs as lost, so that each log is checked whole when it is opened: no file tells how much of
// the log was on disk. The points in the points file do not help, since a truncation may have come
// after them.
func (o *losses) reportCheckpoints() error {
	s := o.s
	s.log.Error("the data directory has lost what its checkpoint files had", "dir", s.cfg.Dir, "err", errCheckpointsLost)
	o.addLoss(errCheckpointsLost)
	for _, id := range s.points.IDs() {
		s.points.Lose(id)
	}
	return o.losePoints(func(LogID) bool { return true })
}

// errPointsLost is reported if both points files are lost.
var errPointsLost = errors.New("both points files are damaged; no record is lost by that, but for logs that did not change lately " +
	"starts that DeleteRecords set, so that deleted records may be back, and high watermarks; " +
	"check the disk, and delete records again that must be gone")

// replacePoints tells the operator that both points files are lost. It marks the points of those
// logs as lost that are not in the newest checkpoint file, and writes a new points file.
func (o *losses) replacePoints(hot *checkpoint.Sheet) error {
	s := o.s
	s.log.Error("the data directory has lost what its points files had", "dir", s.cfg.Dir, "err", errPointsLost)
	o.addLoss(errPointsLost)
	err := o.losePoints(func(id LogID) bool {
		_, known := hot.Points[id]
		return !known
	})
	if err != nil {
		return err
	}
	all := checkpoint.Sheet{Journal: hot.Journal, At: hot.At, Metadata: hot.Metadata, Points: s.points.All(), Transactional: hot.Transactional}
	if err := s.keeper.base.Save(&all); isFull(err) {
		return nil // it is written at the stop, or when many points have changed
	} else if err != nil {
		return err
	}
	s.points.NoteWritten(all.Points)
	return nil
}

// losePoints marks points as lost for those logs that have a directory and are lost according to
// isLost. It fails if it cannot tell whose a directory is: that log would be opened later as one that
// never had a point, and records that are missing in its middle would count as never acknowledged.
func (o *losses) losePoints(isLost func(LogID) bool) error {
	s := o.s
	infos, err := s.fs.ReadDir(s.cfg.Dir)
	if err != nil {
		return err
	}
	for _, i := range infos {
		if !i.Dir {
			continue
		}
		id, _, ok := aside.ParseStray(i.Name)
		if partition, isLog := parseDirName(i.Name); isLog {
			if id.Topic, ok, err = s.dirs.readOwner(i.Name); err != nil {
				return fmt.Errorf("looking whose directory %s is: %w", i.Name, err)
			}
			id.Partition = partition
		}
		if ok && isLost(id) {
			s.points.Lose(id)
		}
	}
	return nil
}
