package cli

import (
	"context"
	"fmt"
	"maps"
	"slices"
	"strconv"
	"strings"

	"github.com/spf13/cobra"
	"github.com/twmb/franz-go/pkg/kadm"
)

func (a *app) newQuotaSet() *cobra.Command {
	var c quotaChoice
	cmd := &cobra.Command{
		Use: "set QUOTA=VALUE...", Short: "Set quotas of a user, a client id or an address", Args: cobra.MinimumNArgs(1), ValidArgsFunction: completeQuotas,
		SuggestFor: []string{"create", "add", "alter"},
		Long: "Set quotas of a user, a client id or an address. Each node measures for itself.\n\n" +
			"  producer_byte_rate        bytes of Produce requests a second\n" +
			"  consumer_byte_rate        bytes of answers with records a second\n" +
			"  request_percentage        time for requests, in percent of one processor\n" +
			"  controller_mutation_rate  partitions created or deleted a second\n" +
			"  connection_creation_rate  connections a second, of an address",
		Example: `  leat quota set --user alice producer_byte_rate=10000000
  leat quota set --user alice --client-default consumer_byte_rate=5000000
  leat quota set --ip-default connection_creation_rate=20`,
		RunE: func(cmd *cobra.Command, args []string) error {
			entity, err := c.mustEntity()
			if err != nil {
				return err
			}
			set := map[string]float64{}
			for _, arg := range args {
				key, text, found := strings.Cut(arg, "=")
				value, err := strconv.ParseFloat(text, 64)
				if !found || err != nil {
					return usagef("%s: write QUOTA=VALUE, with a number", escapeLine(arg))
				}
				if !slices.Contains(quotaKeys(), key) {
					return usagef("%s is no quota: the quotas are %s", escapeLine(key), strings.Join(quotaKeys(), ", "))
				}
				set[key] = value
			}
			var ops []kadm.AlterClientQuotaOp
			for _, key := range slices.Sorted(maps.Keys(set)) {
				ops = append(ops, kadm.AlterClientQuotaOp{Key: key, Value: set[key]})
			}
			return a.withAdmin(cmd.Context(), func(ctx context.Context, adm *kadm.Client) error {
				if err := alterQuotas(ctx, adm, entity, ops); err != nil {
					return err
				}
				return a.show(changedQuotas{quotaOwner: ownerOf(entity), Set: set}, func() string {
					return fmt.Sprintf("set quotas of %s: %s\n", describeEntity(entity), describeQuotas(set))
				})
			})
		},
	}
	c.addFlags(cmd)
	return cmd
}

// describeQuotas is the text for quotas.
func describeQuotas(set map[string]float64) string {
	list := make([]string, 0, len(set))
	for _, key := range slices.Sorted(maps.Keys(set)) {
		list = append(list, key+"="+strconv.FormatFloat(set[key], 'f', -1, 64))
	}
	return strings.Join(list, ", ")
}

// completeQuotas completes the names of quotas.
func completeQuotas(*cobra.Command, []string, string) ([]string, cobra.ShellCompDirective) {
	list := quotaKeys()
	for i := range list {
		list[i] += "="
	}
	return list, cobra.ShellCompDirectiveNoFileComp | cobra.ShellCompDirectiveNoSpace
}
