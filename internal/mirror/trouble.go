package mirror

import (
	"context"
	"errors"

	"github.com/leatstream/leat/internal/controller"
	"github.com/leatstream/leat/internal/mirror/progress"
	"github.com/leatstream/leat/internal/mirror/source"
)

// errSessionEnded is why nothing is heard from a source any more: the link was paused or removed, has other settings, or the node stops.
var errSessionEnded = errors.New("the connections of the link were closed")

// orEnded is an error, or errSessionEnded if that is the reason: the context is the session's.
func orEnded(ctx context.Context, err error) error {
	if ctx.Err() != nil {
		return errSessionEnded
	}
	return err
}

// lost is the trouble of a question that has no answer.
func lost(err error) progress.Trouble {
	return progress.Trouble{Kind: progress.Lost, Reason: reasonOf(err)}
}

// sourceTrouble is the trouble of a source's answer for one partition.
func sourceTrouble(err error) progress.Trouble {
	t := progress.Trouble{Kind: progress.Refused}
	switch {
	case err == nil:
		return progress.Trouble{}
	case source.IsOutOfRange(err):
		t.Kind = progress.OutOfRange
	case source.IsLeaderUnknown(err):
		t.Kind = progress.LeaderUnknown
	case source.IsTopicGone(err):
		t.Kind = progress.TopicGone
	}
	t.Reason = err.Error()
	return t
}

// logTrouble is the trouble of a change of the log here.
func logTrouble(err error) progress.Trouble {
	t := progress.Trouble{Kind: progress.Refused}
	switch {
	case err == nil:
		return progress.Trouble{}
	case errors.Is(err, ErrNotLeader):
		t.Kind = progress.NotLeader
	case errors.Is(err, ErrEpochAhead):
		t.Kind = progress.EpochAhead
	case errors.Is(err, ErrNotMirroring):
		t.Kind = progress.NotMirroring
	case errors.Is(err, ErrDoesNotFit):
		t.Kind = progress.DoesNotFit
	}
	t.Reason = err.Error()
	return t
}

// decisionTrouble is the trouble of a change that the controller was asked for.
func decisionTrouble(refused *controller.Error, err error) progress.Trouble {
	switch {
	case err != nil:
		return lost(err)
	case refused == nil:
		return progress.Trouble{}
	}
	return progress.Trouble{Kind: progress.Refused, Reason: refused.Error()}
}
