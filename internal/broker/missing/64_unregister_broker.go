package missing

import (
	"fmt"

	"github.com/twmb/franz-go/pkg/kerr"
	"github.com/twmb/franz-go/pkg/kmsg"
)

// UnregisterBroker, key 64, version 0 (KIP-746).
//
// A broker that is registered is one that serves, as long as a cluster is one node. It is
// not taken out while it does; Kafka would have it stop.

func unregisterBroker(n Node, kreq kmsg.Request) Answer {
	req, _ := kreq.(*kmsg.UnregisterBrokerRequest)
	resp := kmsg.NewPtrUnregisterBrokerResponse()
	resp.ErrorCode = kerr.BrokerIDNotRegistered.Code
	resp.ErrorMessage = new(fmt.Sprintf("Broker ID %d is not currently registered", req.BrokerID))
	if n.Image.Brokers[req.BrokerID] != nil {
		resp.ErrorCode = kerr.PolicyViolation.Code
		resp.ErrorMessage = new(fmt.Sprintf("Broker ID %d serves, and this version cannot take a broker out of the cluster yet.", req.BrokerID))
	}
	return fixedAnswer(resp)
}
