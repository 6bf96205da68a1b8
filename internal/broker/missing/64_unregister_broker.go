package missing

import (
	"fmt"

	"github.com/twmb/franz-go/pkg/kerr"
	"github.com/twmb/franz-go/pkg/kmsg"
)

// UnregisterBroker, key 64, version 0 (KIP-746).
//
// As long as a cluster is one node, a registered broker is one that is running. It is not
// removed; Kafka would remove it and have it stop.

func unregisterBroker(n Node, kreq kmsg.Request) Answer {
	req, _ := kreq.(*kmsg.UnregisterBrokerRequest)
	resp := kmsg.NewPtrUnregisterBrokerResponse()
	resp.ErrorCode = kerr.BrokerIDNotRegistered.Code
	resp.ErrorMessage = new(fmt.Sprintf("Broker ID %d is not currently registered", req.BrokerID))
	if n.Image.Brokers[req.BrokerID] != nil {
		resp.ErrorCode = kerr.PolicyViolation.Code
		resp.ErrorMessage = new(fmt.Sprintf("Broker ID %d is running, and this version cannot remove a broker from the cluster yet.", req.BrokerID))
	}
	return fixedAnswer(resp)
}
