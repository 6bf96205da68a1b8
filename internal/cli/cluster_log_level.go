package cli

import (
	"context"
	"fmt"
	"slices"
	"strconv"

	"github.com/spf13/cobra"
	"github.com/twmb/franz-go/pkg/kadm"
	"github.com/twmb/franz-go/pkg/kgo"

	"github.com/leatstream/leat/internal/admin"
	"github.com/leatstream/leat/internal/cli/phrase"
)

func (a *app) newClusterLogLevel() *cobra.Command {
	var broker int32
	cmd := &cobra.Command{
		Use: "log-level [LOGGER=LEVEL...]", Short: "Show how much a broker logs, or change it while it runs",
		Long: `Show how much each logger of a broker logs, or change it while the broker runs. A level is one of
TRACE, DEBUG, INFO, WARN, ERROR and FATAL. A change lasts until the broker stops.`,
		Example: `  leat cluster log-level
  leat cluster log-level root=DEBUG --broker 1`,
		ValidArgsFunction: completeNothing,
		RunE: func(cmd *cobra.Command, args []string) error {
			levels, err := parsePairs("", args)
			if err != nil {
				return err
			}
			return a.withClient(cmd.Context(), func(ctx context.Context, cl *kgo.Client) error {
				return a.setLogLevels(ctx, cl, broker, levels)
			})
		},
	}
	cmd.Flags().Int32Var(&broker, "broker", -1, "the broker's id (default: the only broker)")
	a.completeFlag(cmd, "broker", a.completeBrokers(0))
	return cmd
}

// setLogLevels changes the given levels, if there are any, and then shows all levels of the broker.
func (a *app) setLogLevels(ctx context.Context, cl *kgo.Client, broker int32, levels map[string]*string) error {
	adm := kadm.NewClient(cl)
	if broker < 0 {
		brokers, err := adm.ListBrokers(ctx)
		if err != nil {
			return fmt.Errorf("asking for brokers: %w", err)
		}
		if len(brokers) != 1 {
			return usagef("there are %d brokers: name one with --broker", len(brokers))
		}
		broker = brokers[0].NodeID
	} else if err := brokerOf(broker).checkBroker(ctx, adm); err != nil {
		return err
	}
	loggers, err := admin.DescribeLoggers(ctx, cl, broker)
	if err != nil {
		return err
	}
	if len(levels) > 0 {
		var known []string
		for _, l := range loggers {
			known = append(known, l.Logger)
		}
		for _, name := range sortedKeys(levels) {
			if !slices.Contains(known, name) {
				return notFoundf("broker %d has no logger %s%s", broker, name, phrase.DidYouMean(name, known))
			}
		}
		if err := admin.SetLogLevels(ctx, cl, broker, levels); err != nil {
			return err
		}
		if loggers, err = admin.DescribeLoggers(ctx, cl, broker); err != nil {
			return err
		}
	}
	return a.show(loggers, func() string {
		t := columns{head: []string{">BROKER", "LOGGER", "LEVEL"}}
		for _, l := range loggers {
			t.addRow(strconv.Itoa(int(l.Broker)), l.Logger, l.Level)
		}
		return t.String()
	})
}
