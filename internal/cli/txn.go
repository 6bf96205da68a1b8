package cli

import (
	"context"
	"errors"
	"strconv"
	"time"

	"github.com/spf13/cobra"
	"github.com/twmb/franz-go/pkg/kadm"

	"github.com/leatstream/leat/internal/admin"
)

func (a *app) newTxn() *cobra.Command {
	return a.addOutputFlag(a.addClientFlags(newParent("txn", "List, describe and abort transactions", a.newTxnList(), a.newTxnDescribe(), a.newTxnAbort())))
}

// shownTransaction is a transaction in the output of the verbs.
type shownTransaction struct {
	admin.Transaction
	AgeMillis int64 `json:"age_ms"` // since it began, or, if it hangs, since its producer wrote last; -1: not known
}

// showTransactions adds to transactions what time it is.
func showTransactions(found []admin.Transaction, now time.Time) []shownTransaction {
	shown := []shownTransaction{}
	for _, t := range found {
		s := shownTransaction{Transaction: t, AgeMillis: -1}
		if t.Since >= 0 {
			s.AgeMillis = max(0, now.UnixMilli()-t.Since) // the clock of the coordinator's node may be ahead of this one
		}
		shown = append(shown, s)
	}
	return shown
}

// formatAge writes how long something has lasted, or a dash if that is not known.
func formatAge(millis int64) string {
	if millis < 0 {
		return "-"
	}
	d := time.Duration(millis) * time.Millisecond
	switch {
	case d >= 48*time.Hour:
		return strconv.Itoa(int(d/(24*time.Hour))) + "d"
	case d >= time.Minute:
		return d.Truncate(time.Second).String()
	default:
		return formatDuration(d.Truncate(10 * time.Millisecond))
	}
}

// tellSilent tells a person what the cluster did not tell of transactions.
func (a *app) tellSilent(silent error) {
	if silent != nil {
		a.tellPerson("this may not be all: " + oneLine(explainRefusal(silent)))
	}
}

// explainNotServed makes a sentence of a cluster that knows no requests about transactions.
func explainNotServed(err error) error {
	if errors.Is(err, admin.ErrNotServed) {
		return errors.New("this cluster tells nothing about its transactions")
	}
	return err
}

// completeTransactions proposes the transactional ids that there are, for at most limit arguments (0: any number).
func (a *app) completeTransactions(limit int) completer {
	return a.completeNames(limit, func(ctx context.Context, adm *kadm.Client) ([]string, error) {
		list, err := adm.ListTransactions(ctx, nil, nil)
		return list.TransactionalIDs(), err
	})
}
