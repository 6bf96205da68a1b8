package broker

import (
	"fmt"

	"github.com/twmb/franz-go/pkg/kmsg"

	"github.com/leatstream/leat/internal/broker/missing"
	"github.com/leatstream/leat/internal/budget"
	"github.com/leatstream/leat/internal/wire"
)

// missingAPIs are the APIs of package missing.
func missingAPIs(b *Broker) []api {
	if b.cfg.Controller == nil {
		return nil
	}
	var list []api
	for _, m := range missing.APIs() {
		list = append(list, api{key: m.Key, name: m.Name, min: m.Min, max: m.Max, serve: func(_ *session, r *wire.Request, req kmsg.Request) error {
			return b.replyAnswer(r, m.Answer(b.describeNode(), req))
		}})
	}
	return list
}

func (b *Broker) describeNode() missing.Node {
	return missing.Node{ID: b.cfg.NodeID, LogDir: b.cfg.LogDir, Image: b.cfg.Image()}
}

// replyAnswer reserves the memory of an answer, makes it in turn with other long work, and
// sends it. If the answer needs more memory than there ever is, it returns an error, which
// closes the connection.
func (b *Broker) replyAnswer(r *wire.Request, a missing.Answer) error {
	if a.Memory == 0 {
		r.Reply(a.Make(func() {}))
		return nil
	}
	held, err := r.Reserve(budget.Data, int64(a.Memory))
	if err != nil {
		return err
	}
	defer held.Release()
	b.replyHeld(r, b.makeInTurn(a), &held)
	return nil
}

// replyCommand reserves the memory of the answer to a command, runs the command, and sends the
// answer, which is made of its results. If run returns an error, it returns that and answers nothing.
func (b *Broker) replyCommand(r *wire.Request, run func() error, a missing.Answer) error {
	if a.Memory == 0 {
		if err := run(); err != nil {
			return err
		}
		r.Reply(a.Make(func() {}))
		return nil
	}
	held, err := r.Reserve(budget.Data, int64(a.Memory))
	if err != nil {
		return err
	}
	defer held.Release()
	if err := run(); err != nil {
		return err
	}
	b.replyHeld(r, b.makeInTurn(a), &held)
	return nil
}

// checkAnswerSize refuses a command whose answer might have no room in this node's memory.
func (b *Broker) checkAnswerSize(size missing.Memory) error {
	if int64(size) > b.cfg.Work.Most(budget.Data) {
		return fmt.Errorf("%w: the answer may have %d bytes", errLargeAnswer, size)
	}
	return nil
}

// makeInTurn makes an answer, in turns with all other long work.
func (b *Broker) makeInTurn(a missing.Answer) kmsg.Response {
	b.cfg.Work.Enter(budget.Command)
	defer b.cfg.Work.Leave()
	made := 0
	return a.Make(func() {
		if made++; made%stretch == 0 {
			b.cfg.Work.Pass(budget.Command)
		}
	})
}
