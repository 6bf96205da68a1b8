package mirror

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"slices"
	"strings"
	"time"

	"github.com/leatstream/leat/internal/controller"
	"github.com/leatstream/leat/internal/meta"
	"github.com/leatstream/leat/internal/mirror/follow"
	"github.com/leatstream/leat/internal/mirror/source"
)

const (
	// accessEvery is how often the ACLs and quotas of a source are compared with those here.
	accessEvery = 30 * time.Second
	// mostAccess is how many ACLs or quotas one change has: a change that travels to another node has a mebibyte at most.
	mostAccess = 100
)

// AccessChange is an ACL or a quota that a link has made or removed, or that was refused.
type AccessChange struct {
	Link    string
	ACL     *controller.LinkACL   // nil: it is a quota
	Quota   *controller.LinkQuota // nil: it is an ACL
	Refused *controller.Error
}

// compareAccess has the ACLs and quotas here follow those of the source, as far as the link is asked to.
func (r *round) compareAccess(ctx context.Context) {
	if r.s.set.acls == nil {
		r.t.drop(aclsTask)
	} else {
		r.note(ctx, aclsTask, r.compareACLs(ctx))
	}
	if r.s.set.quotas == nil {
		r.t.drop(quotasTask)
	} else {
		r.note(ctx, quotasTask, r.compareQuotas(ctx))
	}
}

// compareACLs plans by what one broker of the source answers. What is to be removed is asked for once more: a broker that is behind the others may not know of it yet.
func (r *round) compareACLs(ctx context.Context) error {
	theirs, err := r.describeACLs(ctx)
	switch {
	case errors.Is(err, source.ErrNoAuthorizer):
		r.warn("The source has no authorizer, so there are no ACLs to follow; those that the link has made stay.")
		return nil
	case source.IsDenied(err):
		return errors.New("the login lacks the right DESCRIBE of the cluster at the source, without which its ACLs cannot be followed")
	case err != nil:
		return err
	}
	p := follow.ACLs(r.s.set.acls, aclStateOf(r.image(), r.s.link.ID, theirs))
	for i := range p.Steps {
		if p.Steps[i].Action == follow.RemoveACL {
			again, err := r.describeACLs(ctx)
			if err != nil {
				return err
			}
			p = follow.ACLs(r.s.set.acls, aclStateOf(r.image(), r.s.link.ID, unite(theirs, again)))
			break
		}
	}
	r.warnings = append(r.warnings, p.Warnings...)
	return r.applyACLs(ctx, p.Steps)
}

// unite is what is in one of two lists, each once.
func unite(a, b []meta.ACL) []meta.ACL {
	all := map[meta.ACL]struct{}{}
	for _, list := range [][]meta.ACL{a, b} {
		for i := range list {
			all[list[i]] = struct{}{}
		}
	}
	return slices.Collect(maps.Keys(all))
}

func (r *round) describeACLs(ctx context.Context) ([]meta.ACL, error) {
	ctx, cancel := context.WithTimeout(ctx, askTime)
	defer cancel()
	c, err := r.s.client(ctx)
	if err != nil {
		return nil, err
	}
	found, err := c.DescribeACLs(ctx, r.s.set.Tag != 0)
	return aclsOf(found), err
}

// aclsOf are ACLs of a source as they are here. Those that are not known here have what no ACL here has.
func aclsOf(found []source.ACL) []meta.ACL {
	list := make([]meta.ACL, len(found))
	for i := range found {
		a := &found[i]
		list[i] = meta.ACL{
			Principal: a.Principal, Host: a.Host, Resource: meta.ResourceType(a.Resource), Pattern: meta.PatternType(a.Pattern), Name: a.Name,
			Operation: meta.Operation(a.Operation), Permission: meta.Permission(a.Permission),
		}
	}
	return list
}

// aclStateOf is what ACLs are planned by. Those here that other links have made are left out: the controller makes them this link's, too, so that they stay when the other source drops them.
func aclStateOf(img *meta.Image, own meta.UUID, theirs []meta.ACL) *follow.ACLState {
	s := &follow.ACLState{Source: theirs}
	for t := range img.Mirrors(own) {
		if t.IsMirror() {
			s.Mirrored = append(s.Mirrored, t.Mirror.Topic)
		} else {
			s.Promoted = append(s.Promoted, t.Name)
		}
	}
	for a := range img.LinkAccess(own).ACLs() {
		s.Made = append(s.Made, a)
	}
	for a := range img.ACLs().All() {
		if _, isMade := img.LinkAccess(own).FindACL(a); isMade || !isOfOtherLink(img, a) {
			s.Here = append(s.Here, a)
		}
	}
	return s
}

func isOfOtherLink(img *meta.Image, a meta.ACL) bool {
	for _, l := range img.Links().All() {
		if _, isMade := img.LinkAccess(l.ID).FindACL(a); isMade {
			return true
		}
	}
	return false
}

// applyACLs has the controller do the steps in their order. They are such that nothing more is allowed in between than before and after. So if something cannot be denied, or is still allowed, nothing more
// is allowed.
func (r *round) applyACLs(ctx context.Context, steps []follow.ACLStep) error {
	isRestricted := true // all that is to be denied, is
	for len(steps) > 0 {
		n := 1
		for n < min(len(steps), mostAccess) && steps[n].Action == steps[0].Action && steps[n].ACL.Permission == steps[0].ACL.Permission {
			n++
		}
		allows := steps[0].Action == follow.AddACL && steps[0].ACL.Permission == meta.Allow || steps[0].Action == follow.RemoveACL && steps[0].ACL.Permission == meta.Deny
		if allows && !isRestricted {
			r.warn("Nothing more is allowed here by the link until that is done.")
			return nil
		}
		q := &controller.LinksChange{Kind: controller.ChangeLinkACLs, LinkID: r.s.link.ID}
		for i := range steps[:n] {
			q.ACLs = append(q.ACLs, controller.LinkACL{Action: actionOf(steps[i].Action), ACL: steps[i].ACL})
		}
		failed, err := r.changeAccess(ctx, q, func(i int) string { return steps[i].String() })
		if err != nil {
			return err
		}
		isRestricted = isRestricted && (allows || failed == 0)
		steps = steps[n:]
	}
	return nil
}

func actionOf(a follow.ACLAction) controller.AccessAction {
	switch a {
	case follow.AddACL:
		return controller.AddAccess
	case follow.RemoveACL:
		return controller.RemoveAccess
	default:
		return controller.ForgetAccess
	}
}

// changeAccess asks the controller for a change, logs what was done, and warns of what was refused. It counts that.
func (r *round) changeAccess(ctx context.Context, q *controller.LinksChange, sentenceOf func(i int) string) (failed int, err error) {
	results, refused, err := r.s.s.cfg.ChangeLinks(ctx, q)
	if err == nil && refused != nil {
		err = refused
	}
	if err != nil {
		return 0, err
	}
	for i, e := range results {
		r.record(q, i, e)
		if e != nil {
			r.warn("It is refused to %s: %v", lowerFirst(sentenceOf(i)), e)
			failed++
			continue
		}
		r.s.counts.accessChanges.Add(1)
		r.s.s.cfg.Logger.Info("a link follows the access rules of its source", "link", r.s.link.Name, "step", sentenceOf(i))
	}
	return failed, nil
}

// record tells of a change, unless it is only one of what is known.
func (r *round) record(q *controller.LinksChange, i int, refused *controller.Error) {
	c := &AccessChange{Link: r.s.link.Name, Refused: refused}
	var action controller.AccessAction
	if i < len(q.ACLs) {
		c.ACL, action = &q.ACLs[i], q.ACLs[i].Action
	} else {
		c.Quota, action = &q.Quotas[i-len(q.ACLs)], q.Quotas[i-len(q.ACLs)].Action
	}
	if tell := r.s.s.cfg.Recorded; tell != nil && action != controller.ForgetAccess {
		tell(c)
	}
}

// compareQuotas has quotas here follow those of the source.
func (r *round) compareQuotas(ctx context.Context) error {
	theirs, err := r.describeQuotas(ctx)
	switch {
	case source.IsDenied(err):
		return errors.New("the login lacks the right DESCRIBE_CONFIGS of the cluster at the source, without which its quotas cannot be followed")
	case err != nil:
		return err
	}
	p := planQuotas(r.image(), r.s.link.ID, r.s.set.quotas, theirs)
	r.warnings = append(r.warnings, p.Warnings...)
	for steps := p.Steps; len(steps) > 0; {
		n := min(len(steps), mostAccess)
		q := &controller.LinksChange{Kind: controller.ChangeLinkQuotas, LinkID: r.s.link.ID}
		for i := range steps[:n] {
			one := controller.LinkQuota{Action: controller.AddAccess, Quota: steps[i].Quota, Value: steps[i].Value}
			switch {
			case steps[i].IsForgone:
				one.Action = controller.ForgetAccess
			case steps[i].Removes:
				one.Action = controller.RemoveAccess
			}
			q.Quotas = append(q.Quotas, one)
		}
		if _, err := r.changeAccess(ctx, q, func(i int) string { return steps[i].String() }); err != nil {
			return err
		}
		steps = steps[n:]
	}
	return nil
}

// planQuotas plans by what the source has. Quotas of entities that there are not here are not followed, and told of.
func planQuotas(img *meta.Image, own meta.UUID, rules *follow.QuotaRules, found []source.Quota) follow.Plan[follow.QuotaStep] {
	theirs, here, unknown := map[meta.QuotaID]float64{}, map[meta.QuotaID]float64{}, 0
	for i := range found {
		e, ok := entityOf(found[i].Entity)
		if !ok {
			unknown++
			continue
		}
		theirs[meta.QuotaID{Entity: e, Key: meta.QuotaKey(found[i].Key)}] = found[i].Value
	}
	for e, set := range img.Quotas().ByEntity {
		for key, value := range set {
			here[meta.QuotaID{Entity: e, Key: key}] = value
		}
	}
	p := follow.Quotas(rules, theirs, here, img.LinkAccess(own).Quotas())
	if unknown > 0 {
		p.Warnings = append(p.Warnings, fmt.Sprintf("The source has %s of a kind that this version does not know, which the link does not follow.", countOf(unknown, "quota")))
	}
	return p
}

func (r *round) describeQuotas(ctx context.Context) ([]source.Quota, error) {
	ctx, cancel := context.WithTimeout(ctx, askTime)
	defer cancel()
	c, err := r.s.client(ctx)
	if err != nil {
		return nil, err
	}
	return c.DescribeQuotas(ctx)
}

// entityOf is an entity by the words of Kafka.
func entityOf(parts []source.QuotaPart) (e meta.QuotaEntity, ok bool) {
	for _, p := range parts {
		n := meta.QuotaName{Is: true}
		if p.Name != nil {
			n.Name = *p.Name
		}
		switch p.Type {
		case controller.QuotaUser:
			e.User = n
		case controller.QuotaClientID:
			e.ClientID = n
		case controller.QuotaIP:
			e.IP = n
		default:
			return e, false
		}
	}
	return e, e.IsComplete()
}

// checkAccess tries what following ACLs and quotas needs, and tells of what is not followed.
func (c *check) checkAccess(ctx context.Context) {
	ctx, cancel := context.WithTimeout(ctx, askTime)
	defer cancel()
	for _, key := range c.set.idle {
		c.r.Warnings = append(c.r.Warnings, Finding{key, "This setting has no effect while the link does not follow what it is for.", fmt.Sprintf("Switch that on, with --acls on or --quotas on, or unset it: --unset %s.", key)})
	}
	if c.set.acls != nil {
		list, err := c.client.DescribeACLs(ctx, c.r.Tag != 0)
		switch {
		case errors.Is(err, source.ErrNoAuthorizer):
			c.r.Warnings = append(c.r.Warnings, Finding{"acls", "The source has no authorizer, so there are no ACLs to follow.", ""})
		case source.IsDenied(err):
			c.r.problem("acls", "The login lacks the right DESCRIBE of the cluster, without which ACLs are not followed; topics are mirrored all the same.", c.grantOnCluster("DESCRIBE"))
		case err != nil:
			c.r.problem("acls", "The source cannot be asked for its ACLs: "+sentence(err), "Switch that off: --acls off.")
		default:
			c.planACLs(aclsOf(list))
		}
	}
	if c.set.quotas != nil {
		list, err := c.client.DescribeQuotas(ctx)
		switch {
		case source.IsDenied(err):
			c.r.problem("quotas", "The login lacks the right DESCRIBE_CONFIGS of the cluster, without which quotas are not followed; topics are mirrored all the same.", c.grantOnCluster("DESCRIBE_CONFIGS"))
		case err != nil:
			c.r.problem("quotas", "The source cannot be asked for its quotas, which Apache Kafka tells from 2.6 on: "+sentence(err), "Switch that off: --quotas off.")
		default:
			p := planQuotas(c.s.cfg.Image(), c.link.ID, c.set.quotas, list)
			tellPlan(c.r, "quotas", len(list), &p)
		}
	}
}

// planACLs tells what following would change now, for the topics that are mirrored, or would be.
func (c *check) planACLs(theirs []meta.ACL) {
	state := aclStateOf(c.s.cfg.Image(), c.link.ID, theirs)
	state.Mirrored = nil
	for i := range c.r.Topics {
		state.Mirrored = append(state.Mirrored, c.r.Topics[i].Source)
	}
	p := follow.ACLs(c.set.acls, state)
	tellPlan(c.r, "ACLs", len(theirs), &p)
}

// mostSteps is how many steps of a plan a check lists.
const mostSteps = 20

func tellPlan[S fmt.Stringer](r *Report, what string, n int, p *follow.Plan[S]) {
	r.step("the source tells of its %s, of which there are %d; to follow them now takes %s", what, n, countOf(len(p.Steps), "change"))
	sentences := p.Sentences()
	for _, text := range sentences[:min(len(sentences), mostSteps)] {
		r.step("would %s", lowerFirst(text))
	}
	if more := len(sentences) - mostSteps; more > 0 {
		r.step("and %s more", countOf(more, "change"))
	}
	for _, w := range p.Warnings {
		r.Warnings = append(r.Warnings, Finding{About: strings.ToLower(what), Text: w})
	}
}

func (c *check) grantOnCluster(right string) string {
	return fmt.Sprintf("Grant it at the source: kafka-acls --add --allow-principal User:%s --operation %s --cluster.", c.set.user, right)
}
