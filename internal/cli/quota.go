package cli

import (
	"context"
	"strings"

	"github.com/spf13/cobra"
	"github.com/twmb/franz-go/pkg/kadm"

	"github.com/leatstream/leat/internal/meta"
)

func (a *app) newQuota() *cobra.Command {
	return a.addOutputFlag(a.addClientFlags(newParent("quota", "Set, list and delete quotas: how much clients may use of each node",
		a.newQuotaSet(), a.newQuotaDelete(), a.newQuotaList())))
}

// quotaKeys are the names of all quotas.
func quotaKeys() []string {
	return []string{
		string(meta.ProducerByteRate), string(meta.ConsumerByteRate), string(meta.RequestPercentage),
		string(meta.ControllerMutationRate), string(meta.ConnectionRate),
	}
}

// quotaChoice names an entity by flags.
type quotaChoice struct {
	user, client, ip                      string
	userDefault, clientDefault, ipDefault bool
}

func (c *quotaChoice) addFlags(cmd *cobra.Command) {
	f := cmd.Flags()
	f.StringVar(&c.user, "user", "", "a user; clients that do not log in are ANONYMOUS")
	f.StringVar(&c.client, "client", "", "a client id; together with a user, that user's clients of this id")
	f.StringVar(&c.ip, "ip", "", "an IP address")
	f.BoolVar(&c.userDefault, "user-default", false, "all users that have no quota of their own")
	f.BoolVar(&c.clientDefault, "client-default", false, "all client ids that have no quota of their own")
	f.BoolVar(&c.ipDefault, "ip-default", false, "all addresses that have no quota of their own")
}

// entity is the entity that the flags name; none: they name no part of one.
func (c *quotaChoice) entity() (kadm.ClientQuotaEntity, error) {
	var e kadm.ClientQuotaEntity
	for _, p := range []struct {
		typ, flag, name string
		isDefault       bool
	}{
		{"user", "user", c.user, c.userDefault}, {"client-id", "client", c.client, c.clientDefault}, {"ip", "ip", c.ip, c.ipDefault},
	} {
		switch {
		case p.name != "" && p.isDefault:
			return nil, usagef("--%s and --%s-default exclude each other", p.flag, p.flag)
		case p.name != "":
			e = append(e, kadm.ClientQuotaEntityComponent{Type: p.typ, Name: &p.name})
		case p.isDefault:
			e = append(e, kadm.ClientQuotaEntityComponent{Type: p.typ})
		}
	}
	return e, nil
}

// mustEntity is entity for verbs that need one.
func (c *quotaChoice) mustEntity() (kadm.ClientQuotaEntity, error) {
	e, err := c.entity()
	if err == nil && len(e) == 0 {
		err = usagef("say whose quota: --user NAME, --client ID, both, --ip ADDRESS, or --user-default, --client-default, --ip-default")
	}
	return e, err
}

// describeEntity is the text for an entity.
func describeEntity(e kadm.ClientQuotaEntity) string {
	parts := make([]string, len(e))
	for i, p := range e {
		name := "(default)"
		if p.Name != nil {
			name = escapeLine(*p.Name)
		}
		parts[i] = p.Type + " " + name
	}
	return strings.Join(parts, ", ")
}

// changedQuotas is the output of the verbs that change quotas.
type changedQuotas struct {
	quotaOwner

	Set     map[string]float64 `json:"set,omitempty"`
	Deleted []string           `json:"deleted,omitempty"`
}

// quotaOwner is an entity in JSON. A default is null, and a part that the entity does not have is missing.
type quotaOwner struct {
	Entity map[string]*string `json:"entity"`
}

func ownerOf(e kadm.ClientQuotaEntity) quotaOwner {
	o := quotaOwner{map[string]*string{}}
	for _, p := range e {
		o.Entity[p.Type] = p.Name
	}
	return o
}

// alterQuotas changes the quotas of an entity.
func alterQuotas(ctx context.Context, adm *kadm.Client, e kadm.ClientQuotaEntity, ops []kadm.AlterClientQuotaOp) error {
	what := "quotas of " + describeEntity(e)
	res, err := adm.AlterClientQuotas(ctx, []kadm.AlterClientQuotaEntry{{Entity: e, Ops: ops}})
	if err != nil {
		return answerError(what, err, "")
	}
	for _, r := range res {
		if r.Err != nil {
			return answerError(what, r.Err, r.ErrMessage)
		}
	}
	return nil
}
