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
	"github.com/twmb/franz-go/pkg/kmsg"
)

// target is whose configs are meant: a topic's, a broker's, or all brokers'.
type target struct {
	topic  string
	broker int32
	all    bool
}

func (a *app) config() *cobra.Command {
	return a.withOutput(a.asClient(parent("config", "Show and change the configs of topics and brokers",
		a.configGet(), a.configSet(), a.configUnset())))
}

// asTarget gives a verb the flags that name a target.
func (a *app) asTarget(cmd *cobra.Command, t *target) *cobra.Command {
	f := cmd.Flags()
	f.StringVarP(&t.topic, "topic", "t", "", "the configs of this topic")
	f.Int32Var(&t.broker, "broker", -1, "the configs of the broker with this id")
	f.BoolVar(&t.all, "cluster", false, "the configs that are set for all brokers")
	cmd.MarkFlagsMutuallyExclusive("topic", "broker", "cluster")
	cmd.MarkFlagsOneRequired("topic", "broker", "cluster")
	a.complete(cmd, "topic", a.topics(0))
	return cmd
}

func (t target) String() string {
	switch {
	case t.topic != "":
		return "topic " + t.topic
	case t.all:
		return "all brokers"
	default:
		return "broker " + strconv.Itoa(int(t.broker))
	}
}

// describe asks for the target's configs.
func (t target) describe(ctx context.Context, adm *kadm.Client) ([]kadm.Config, error) {
	var res kadm.ResourceConfigs
	var err error
	switch {
	case t.topic != "":
		res, err = adm.DescribeTopicConfigs(ctx, t.topic)
	case t.all:
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
		return nil, about(t.String(), rc.Err, rc.ErrMessage)
	}
	configs := res[0].Configs
	slices.SortFunc(configs, func(a, b kadm.Config) int { return strings.Compare(a.Key, b.Key) })
	return configs, nil
}

// checkBroker spares a wait for a broker that is not there.
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

// alter changes the target's configs.
func (t target) alter(ctx context.Context, adm *kadm.Client, change []kadm.AlterConfig, dryRun bool) (kadm.AlterConfigsResponses, error) {
	topics, brokers := adm.AlterTopicConfigs, adm.AlterBrokerConfigs
	if dryRun {
		topics, brokers = adm.ValidateAlterTopicConfigs, adm.ValidateAlterBrokerConfigs
	}
	switch {
	case t.topic != "":
		if _, err := topicDetails(ctx, adm, t.topic); err != nil {
			return nil, err
		}
		return topics(ctx, change, t.topic)
	case t.all:
		return brokers(ctx, change)
	default:
		if err := t.checkBroker(ctx, adm); err != nil {
			return nil, err
		}
		return brokers(ctx, change, t.broker)
	}
}

// configChange makes the list of changes of name=value and of names.
func configChange(set, unset []string) ([]kadm.AlterConfig, error) {
	values, err := pairs("", set)
	if err != nil {
		return nil, err
	}
	var change []kadm.AlterConfig
	for _, k := range sortedKeys(values) {
		change = append(change, kadm.AlterConfig{Op: kadm.SetConfig, Name: k, Value: values[k]})
	}
	for _, k := range unset {
		change = append(change, kadm.AlterConfig{Op: kadm.DeleteConfig, Name: k})
	}
	return change, nil
}

// showAltered tells what became of a change; kind stands before each name.
func (a *app) showAltered(kind string, res kadm.AlterConfigsResponses, err error, dryRun bool) error {
	if err != nil {
		if _, ok := errors.AsType[*told](err); ok {
			return err
		}
		return fmt.Errorf("changing configs: %w", err)
	}
	var failed []error
	for _, r := range res {
		name := kind + r.Name
		if r.Err != nil {
			failed = append(failed, about(name, r.Err, r.ErrMessage))
			continue
		}
		did := "changed "
		if dryRun {
			did = "would change "
		}
		if err := a.say("%s%s", did, name); err != nil {
			return err
		}
	}
	return errors.Join(failed...)
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
