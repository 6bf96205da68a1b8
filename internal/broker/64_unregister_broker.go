package broker

import (
	"fmt"

	"github.com/twmb/franz-go/pkg/kmsg"

	"github.com/leatstream/leat/internal/controller"
	"github.com/leatstream/leat/internal/meta"
	"github.com/leatstream/leat/internal/wire"
)

// UnregisterBroker, key 64, version 0 (KIP-746).
//
// A broker that is running is not removed. Kafka 4.3 removes it without a look at that, has it register again, and
// meanwhile elects other leaders; it has no code for the refusal, and its clients show the sentence beside any.

func (b *Broker) unregisterBroker(d *decision, r *wire.Request, kreq kmsg.Request) error {
	req, _ := kreq.(*kmsg.UnregisterBrokerRequest)
	resp := kmsg.NewPtrUnregisterBrokerResponse()
	m := b.cfg.Image()
	var refused *controller.Error
	var failed error
	if findAlive(m.Brokers, req.BrokerID) != nil {
		refused = &controller.Error{Kind: controller.PolicyViolation, Message: fmt.Sprintf("Broker ID %d is running: stop it before it is removed.", req.BrokerID)}
	} else {
		ctx, cancel := d.withTimeout(int32(meta.ServerSettings(m, b.cfg.Static).RequestTimeout.Milliseconds()))
		defer cancel()
		refused, failed = d.UnregisterBroker(ctx, req.BrokerID)
	}
	if d.isElsewhere(failed) {
		return failed
	}
	resp.ErrorCode, resp.ErrorMessage = outcomeOf(refused, failed)
	r.Reply(resp)
	return nil
}
