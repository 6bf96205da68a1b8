package missing

import (
	"github.com/twmb/franz-go/pkg/kerr"
	"github.com/twmb/franz-go/pkg/kmsg"
)

// DescribeUserScramCredentials, key 50, and AlterUserScramCredentials, key 51, version 0
// (KIP-554).
//
// Users cannot log in yet, so no user has credentials, and none can be set. A request that
// Kafka would refuse gets Kafka's error, and one that sets valid credentials is refused by
// a message that says so.

func describeUserScramCredentials(_ Node, kreq kmsg.Request) Answer {
	req, _ := kreq.(*kmsg.DescribeUserSCRAMCredentialsRequest)
	const messageText = 96
	var size Memory
	for i := range req.Users {
		size.Add(2, 2*len(req.Users[i].Name)+messageText)
	}
	return Answer{Memory: size, Make: func(pass func()) kmsg.Response {
		resp := kmsg.NewPtrDescribeUserSCRAMCredentialsResponse()
		resp.ErrorMessage = new(string) // empty, not null, as in Kafka
		places := make(map[string]int, len(req.Users))
		for i := range req.Users {
			pass()
			name := req.Users[i].Name
			place, again := places[name]
			if again {
				ru := &resp.Results[place]
				ru.ErrorCode = kerr.DuplicateResource.Code
				ru.ErrorMessage = new("Cannot describe SCRAM credentials for the same user twice in a single request: " + name)
				continue
			}
			places[name] = len(resp.Results)
			resp.Results = append(resp.Results, kmsg.DescribeUserSCRAMCredentialsResponseResult{
				User: name, ErrorCode: kerr.ResourceNotFound.Code,
				ErrorMessage: new("Attempt to describe a user credential that does not exist: " + name),
			})
		}
		return resp
	}}
}

// Kafka's bounds for the iterations of SCRAM-SHA-256 and SCRAM-SHA-512.
const (
	minIterations = 4096
	maxIterations = 16384
)

func alterUserScramCredentials(_ Node, kreq kmsg.Request) Answer {
	req, _ := kreq.(*kmsg.AlterUserSCRAMCredentialsRequest)
	const messageText = 96
	var size Memory
	for i := range req.Deletions {
		size.Add(2, len(req.Deletions[i].Name)+messageText)
	}
	for i := range req.Upsertions {
		size.Add(2, len(req.Upsertions[i].Name)+messageText)
	}
	return Answer{Memory: size, Make: func(pass func()) kmsg.Response {
		u := users{resp: kmsg.NewPtrAlterUserSCRAMCredentialsResponse(), places: make(map[string]int, len(req.Deletions)+len(req.Upsertions))}
		for i := range req.Deletions {
			pass()
			e, message := judgeUser(req.Deletions[i].Name, req.Deletions[i].Mechanism)
			if e == nil {
				e, message = kerr.ResourceNotFound, "Attempt to delete a user credential that does not exist"
			}
			u.refuseUser(req.Deletions[i].Name, false, e, message)
		}
		for i := range req.Upsertions {
			pass()
			e, message := judgeCredential(&req.Upsertions[i])
			valid := e == nil
			if valid {
				e, message = kerr.UnsupportedSaslMechanism, "This broker does not serve SASL yet, so it keeps no credentials."
			}
			u.refuseUser(req.Upsertions[i].Name, valid, e, message)
		}
		return u.resp
	}}
}

// users is an answer with one element for each user.
type users struct {
	resp *kmsg.AlterUserSCRAMCredentialsResponse
	// places are the indexes of users in the answer. If a user's only change so far was
	// valid, it is -1 minus the index.
	places map[string]int
}

// refuseUser answers for a change of a user's credentials. If an earlier change of the user
// was invalid, its answer stays. If it was valid, the second change makes both invalid.
func (u *users) refuseUser(name string, valid bool, e *kerr.Error, message string) {
	place, again := u.places[name]
	if again && place >= 0 {
		return
	}
	if again {
		place = -place - 1
		e, message = kerr.DuplicateResource, "A user credential cannot be altered twice in the same request"
		u.places[name] = place
	} else {
		place = len(u.resp.Results)
		u.resp.Results = append(u.resp.Results, kmsg.AlterUserSCRAMCredentialsResponseResult{User: name})
		if u.places[name] = place; valid {
			u.places[name] = -place - 1
		}
	}
	u.resp.Results[place].ErrorCode, u.resp.Results[place].ErrorMessage = e.Code, &message
}

func judgeUser(name string, mechanism int8) (*kerr.Error, string) {
	const scramSHA256, scramSHA512 = 1, 2
	switch {
	case name == "":
		return kerr.UnacceptableCredential, "Username must not be empty"
	case mechanism != scramSHA256 && mechanism != scramSHA512:
		return kerr.UnsupportedSaslMechanism, "Unknown SCRAM mechanism"
	}
	return nil, ""
}

func judgeCredential(u *kmsg.AlterUserSCRAMCredentialsRequestUpsertion) (*kerr.Error, string) {
	e, message := judgeUser(u.Name, u.Mechanism)
	switch {
	case e != nil:
		return e, message
	case u.Iterations < minIterations:
		return kerr.UnacceptableCredential, "Too few iterations"
	case u.Iterations > maxIterations:
		return kerr.UnacceptableCredential, "Too many iterations"
	}
	return nil, ""
}
