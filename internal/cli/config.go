package cli

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strconv"
	"strings"

	"github.com/spf13/cobra"
	"github.com/twmb/franz-go/pkg/kadm"
	"github.com/twmb/franz-go/pkg/kerr"
	"github.com/twmb/franz-go/pkg/kgo"
	"github.com/twmb/franz-go/pkg/kmsg"

	"github.com/leatstream/leat/internal/admin"
	"github.com/leatstream/leat/internal/cli/phrase"
)

// targetKind says whose configs are meant.
type targetKind int

const (
	topicTarget  targetKind = iota + 1 // those of one topic
	brokerTarget                       // those of one broker
	allBrokers                         // those that are set for all brokers together
)

// target says whose configs are meant. Its kind alone decides that, never a name that is empty or an id that is 0.
type target struct {
	kind   targetKind
	topic  string // of a topicTarget
	broker int32  // of a brokerTarget
}

func topicOf(name string) target { return target{kind: topicTarget, topic: name} }

func brokerOf(id int32) target { return target{kind: brokerTarget, broker: id} }

// targetFlags are the flags that name a target.
type targetFlags struct {
	topic  string
	broker int32
	all    bool
}

func (a *app) newConfig() *cobra.Command {
	return a.addOutputFlag(a.addClientFlags(newParent("config", "Show and change the configs of topics and brokers",
		a.newConfigGet(), a.newConfigSet(), a.newConfigUnset())))
}

// addTargetFlags gives a verb the flags that name a target.
func (a *app) addTargetFlags(cmd *cobra.Command, t *targetFlags) *cobra.Command {
	f := cmd.Flags()
	f.StringVarP(&t.topic, "topic", "t", "", "the configs of this topic")
	f.Int32Var(&t.broker, "broker", -1, "the configs of the broker with this id")
	f.BoolVar(&t.all, "cluster", false, "the configs that are set for all brokers")
	cmd.MarkFlagsMutuallyExclusive("topic", "broker", "cluster")
	cmd.MarkFlagsOneRequired("topic", "broker", "cluster")
	a.completeFlag(cmd, "topic", a.completeTopics(0))
	a.completeFlag(cmd, "broker", a.completeBrokers(0))
	return cmd
}

// chooseTarget makes the target of the flag that was given to a verb.
func (t targetFlags) chooseTarget(cmd *cobra.Command) (target, error) {
	switch f := cmd.Flags(); {
	case f.Changed("topic"):
		return topicOf(t.topic), nil
	case f.Changed("broker"):
		return brokerOf(t.broker), nil
	case t.all:
		return target{kind: allBrokers}, nil
	default:
		return target{}, usagef("--cluster=false names nothing: give --topic, --broker or --cluster")
	}
}

func (t target) String() string {
	switch t.kind {
	case topicTarget:
		return "topic " + t.topic
	case allBrokers:
		return "all brokers"
	default:
		return "broker " + strconv.Itoa(int(t.broker))
	}
}

// describeConfigs asks for the target's configs.
func (t target) describeConfigs(ctx context.Context, adm *kadm.Client) ([]kadm.Config, error) {
	var res kadm.ResourceConfigs
	var err error
	switch t.kind {
	case topicTarget:
		res, err = adm.DescribeTopicConfigs(ctx, t.topic)
	case allBrokers:
		res, err = adm.DescribeBrokerConfigs(ctx)
	default:
		if err := t.checkBroker(ctx, adm); err != nil {
			return nil, err
		}
		res, err = adm.DescribeBrokerConfigs(ctx, t.broker)
	}
	if err != nil {
		return nil, fmt.Errorf("asking for configs: %w", err)
	}
	if len(res) != 1 {
		return nil, fmt.Errorf("asking for the configs of %s: the broker gave %d answers instead of one", t, len(res))
	}
	if rc := res[0]; rc.Err != nil {
		if t.kind == topicTarget {
			return nil, topicError(ctx, adm, t.topic, rc.Err, rc.ErrMessage)
		}
		return nil, answerError(t.String(), rc.Err, rc.ErrMessage)
	}
	configs := res[0].Configs
	slices.SortFunc(configs, func(a, b kadm.Config) int { return strings.Compare(a.Key, b.Key) })
	return configs, nil
}

// checkBroker fails at once if the broker does not exist. A request to it would wait for the timeout.
func (t target) checkBroker(ctx context.Context, adm *kadm.Client) error {
	brokers, err := adm.ListBrokers(ctx)
	if err != nil {
		return fmt.Errorf("asking for brokers: %w", err)
	}
	if !slices.Contains(brokers.NodeIDs(), t.broker) {
		return notFoundf("broker %d does not exist: \"leat cluster\" shows the brokers", t.broker)
	}
	return nil
}

// adminResource is the target in the form in which a broker is asked about it.
func (t target) adminResource() admin.Resource {
	switch t.kind {
	case topicTarget:
		return admin.Resource{Type: kmsg.ConfigResourceTypeTopic, Name: t.topic}
	case allBrokers:
		return admin.Resource{Type: kmsg.ConfigResourceTypeBroker}
	default:
		return admin.Resource{Type: kmsg.ConfigResourceTypeBroker, Name: strconv.Itoa(int(t.broker))}
	}
}

// alterConfigs changes the target's configs. The note says which of them have no effect, and what one of them
// takes away.
func (t target) alterConfigs(ctx context.Context, cl *kgo.Client, c configChange) (note string, err error) {
	adm := kadm.NewClient(cl)
	if t.kind == brokerTarget {
		if err := t.checkBroker(ctx, adm); err != nil {
			return "", err
		}
	}
	note, err = admin.AlterConfigs(ctx, cl, t.adminResource(), c.adminChanges(), c.dryRun)
	if errors.Is(err, kerr.InvalidConfig) { // perhaps there is no such config
		if unknown := t.checkNames(ctx, adm, sortedKeys(c.set)); errors.Is(unknown, errNotFound) {
			return "", unknown
		}
	}
	if policy := c.set["cleanup.policy"]; err == nil && t.topic != "" && policy != nil && strings.Contains(*policy, "compact") {
		note = strings.TrimPrefix(note+"; "+keylessNote, "; ")
	}
	return note, explainRefusal(err)
}

// keylessNote is for those who make a topic a compacted one.
const keylessNote = "records without a key, which it may have, go when it is compacted, and are refused from now on"

// checkChange refuses a change that says two things about one config.
func (c configChange) checkChange() error {
	for _, name := range c.unset {
		if _, both := c.set[name]; both {
			return usagef("%s is to be both set and unset: leave one of them out", name)
		}
	}
	return nil
}

// configChange is the change of configs that a verb was asked for.
type configChange struct {
	set    map[string]*string
	unset  []string
	dryRun bool
}

// adminChanges are the parts of the change, in the form in which a broker is asked for them.
func (c configChange) adminChanges() []admin.ConfigChange {
	var all []admin.ConfigChange
	for _, name := range sortedKeys(c.set) {
		all = append(all, admin.ConfigChange{Name: name, Value: c.set[name]})
	}
	for _, name := range c.unset {
		all = append(all, admin.ConfigChange{Name: name})
	}
	return all
}

// checkNames fails if one of the configs does not exist. A broker that is asked to unset such a
// config says that it has done so.
func (t target) checkNames(ctx context.Context, adm *kadm.Client, names []string) error {
	if len(names) == 0 {
		return nil
	}
	known, err := t.listConfigNames(ctx, adm)
	if err != nil {
		return err
	}
	for _, n := range names {
		if !slices.Contains(known, n) {
			return t.noSuchConfigError(n, known)
		}
	}
	return nil
}

// noSuchConfigError says that a config does not exist, and which ones may have been meant.
func (t target) noSuchConfigError(name string, known []string) error {
	if hint := phrase.DidYouMean(name, known); hint != "" {
		return notFoundf("there is no config %s for %s%s", name, t, hint)
	}
	return notFoundf("there is no config %s for %s: \"leat config get\" without a name lists all", name, t)
}

// listConfigNames lists the configs that the target may have. For all brokers it asks one of
// them, because the list for all brokers has only the configs that are set.
func (t target) listConfigNames(ctx context.Context, adm *kadm.Client) ([]string, error) {
	of := []target{t}
	if t.kind == allBrokers {
		brokers, err := adm.ListBrokers(ctx)
		if err != nil {
			return nil, fmt.Errorf("asking for brokers: %w", err)
		}
		if len(brokers) > 0 {
			of = append(of, brokerOf(brokers[0].NodeID))
		}
	}
	var names []string
	for _, t := range of {
		configs, err := t.describeConfigs(ctx, adm)
		if err != nil {
			return nil, err
		}
		for _, c := range configs {
			names = append(names, c.Key)
		}
	}
	return names, nil
}

// alteredConfigs is the output of the verbs that change configs. Exactly one of Topic, Broker and
// Cluster is set.
type alteredConfigs struct {
	of target

	Topic   string            `json:"topic,omitempty"`
	Broker  *int32            `json:"broker,omitempty"`
	Cluster bool              `json:"cluster,omitempty"`
	Set     map[string]string `json:"set,omitempty"`
	Unset   []string          `json:"unset,omitempty"`
	Note    string            `json:"note,omitempty"`    // which of the configs have no effect on this broker, and what one takes away
	DryRun  bool              `json:"dry_run,omitempty"` // nothing was changed: the broker would do it
}

// alterConfigs changes the configs of targets and shows the outcome.
func (a *app) alterConfigs(ctx context.Context, cl *kgo.Client, c configChange, targets ...target) error {
	adm := kadm.NewClient(cl)
	var failed []error
	var found []target
	for _, t := range targets {
		if t.kind == topicTarget {
			switch _, err := topicDetails(ctx, adm, t.topic); {
			case errors.Is(err, errNotFound):
				failed = append(failed, err)
				continue
			case err != nil:
				return err
			}
		}
		if err := t.checkNames(ctx, adm, c.unset); err != nil {
			return err
		}
		found = append(found, t)
	}
	all := []alteredConfigs{}
	for _, t := range found {
		note, err := t.alterConfigs(ctx, cl, c)
		if err != nil {
			failed = append(failed, err)
			continue
		}
		a.writeNote(t.String(), note)
		done := alteredConfigs{of: t, Topic: t.topic, Cluster: t.kind == allBrokers, Unset: c.unset, Set: map[string]string{}, Note: note, DryRun: c.dryRun}
		if t.kind == brokerTarget {
			done.Broker = &t.broker
		}
		for k, v := range c.set {
			done.Set[k] = *v
		}
		all = append(all, done)
	}
	did := "changed "
	if c.dryRun {
		did = "would change "
	}
	err := showEach(a, all, func(i int) string { return did + all[i].of.String() })
	return errors.Join(append(failed, err)...)
}

// isSet tells whether somebody set a config, here or in a broker's file.
func isSet(c kadm.Config) bool {
	switch c.Source {
	case kmsg.ConfigSourceDynamicTopicConfig, kmsg.ConfigSourceDynamicBrokerConfig, kmsg.ConfigSourceStaticBrokerConfig,
		kmsg.ConfigSourceDynamicDefaultBrokerConfig:
		return true
	default:
		return false
	}
}
