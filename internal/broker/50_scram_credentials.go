package broker

import (
	"slices"
	"strings"

	"github.com/twmb/franz-go/pkg/kerr"
	"github.com/twmb/franz-go/pkg/kmsg"

	"github.com/leatstream/leat/internal/broker/missing"
	"github.com/leatstream/leat/internal/controller"
	"github.com/leatstream/leat/internal/meta"
	"github.com/leatstream/leat/internal/wire"
)

// DescribeUserScramCredentials, key 50, and AlterUserScramCredentials, key 51, version 0 (KIP-554).
//
// Nobody is shown more of a credential than its mechanism and its iterations. The users of the answers are in the order
// of the request; without names in the request, in their own.

func (b *Broker) describeCredentials(_ *session, r *wire.Request, kreq kmsg.Request) error {
	req, _ := kreq.(*kmsg.DescribeUserSCRAMCredentialsRequest)
	byOwner := b.cfg.Image().Credentials().ByOwner
	times, names := map[string]int{}, []string(nil)
	ask := func(name string) {
		if times[name]++; times[name] == 1 {
			names = append(names, name)
		}
	}
	for i := range req.Users {
		ask(req.Users[i].Name)
	}
	if len(req.Users) == 0 {
		for owner := range byOwner {
			ask(owner.User)
			times[owner.User] = 1
		}
		slices.SortFunc(names, strings.Compare)
	}
	const messageText = 96
	var size missing.Memory
	for _, name := range names {
		size.Add(3, 2*len(name)+messageText)
	}
	return b.replyAnswer(r, missing.Answer{Memory: size, Make: func(pass func()) kmsg.Response {
		resp := kmsg.NewPtrDescribeUserSCRAMCredentialsResponse()
		resp.ErrorMessage = new(string) // empty, not null, as in Kafka
		for _, name := range names {
			pass()
			ru := kmsg.DescribeUserSCRAMCredentialsResponseResult{User: name}
			for _, m := range []meta.ScramMechanism{meta.ScramSHA256, meta.ScramSHA512} {
				if c := byOwner[meta.CredentialOwner{User: name, Mechanism: m}]; c != nil {
					ru.CredentialInfos = append(ru.CredentialInfos, kmsg.DescribeUserSCRAMCredentialsResponseResultCredentialInfo{Mechanism: int8(m), Iterations: c.Iterations})
				}
			}
			switch {
			case times[name] > 1:
				ru.CredentialInfos = nil
				ru.ErrorCode = kerr.DuplicateResource.Code
				ru.ErrorMessage = new("Cannot describe SCRAM credentials for the same user twice in a single request: " + name)
			case len(ru.CredentialInfos) == 0:
				ru.ErrorCode = kerr.ResourceNotFound.Code
				ru.ErrorMessage = new("Attempt to describe a user credential that does not exist: " + name)
			}
			resp.Results = append(resp.Results, ru)
		}
		return resp
	}})
}

func (b *Broker) alterCredentials(d *decision, r *wire.Request, kreq kmsg.Request) error {
	req, _ := kreq.(*kmsg.AlterUserSCRAMCredentialsRequest)
	var gone []meta.CredentialOwner
	for i := range req.Deletions {
		gone = append(gone, meta.CredentialOwner{User: req.Deletions[i].Name, Mechanism: meta.ScramMechanism(req.Deletions[i].Mechanism)})
	}
	var set []controller.NewCredential
	for i := range req.Upsertions {
		u := &req.Upsertions[i]
		set = append(set, controller.NewCredential{
			Owner: meta.CredentialOwner{User: u.Name, Mechanism: meta.ScramMechanism(u.Mechanism)},
			Salt:  u.Salt, Salted: u.SaltedPassword, Iterations: u.Iterations,
		})
	}
	var outcomes []controller.CredentialChange
	var failed error
	run := func() error {
		ctx, cancel := d.within(meta.ServerSettings(b.cfg.Image(), b.cfg.Static).RequestTimeout)
		defer cancel()
		if outcomes, failed = d.AlterCredentials(ctx, gone, set); d.isElsewhere(failed) {
			return failed
		}
		return nil
	}
	return b.replyCommand(r, run, missing.Answer{Memory: sizeOfUsers(req), Make: func(pass func()) kmsg.Response {
		resp := kmsg.NewPtrAlterUserSCRAMCredentialsResponse()
		if failed != nil {
			outcomes = nil
			for _, user := range usersOf(req) {
				outcomes = append(outcomes, controller.CredentialChange{User: user})
			}
		}
		for i := range outcomes {
			pass()
			ru := kmsg.AlterUserSCRAMCredentialsResponseResult{User: outcomes[i].User}
			if failed != nil || outcomes[i].Err != nil { // a success has no message, as in Kafka
				ru.ErrorCode, ru.ErrorMessage = outcomeOf(outcomes[i].Err, failed)
			}
			resp.Results = append(resp.Results, ru)
		}
		return resp
	}})
}

func sizeOfUsers(req *kmsg.AlterUserSCRAMCredentialsRequest) (size missing.Memory) {
	const messageText = 160
	for i := range req.Deletions {
		size.Add(2, len(req.Deletions[i].Name)+messageText)
	}
	for i := range req.Upsertions {
		size.Add(2, len(req.Upsertions[i].Name)+messageText)
	}
	return size
}
