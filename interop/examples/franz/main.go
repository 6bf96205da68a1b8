// Command franz bills orders exactly once: it reads the topic orders, and writes an invoice for each order into the topic invoices. The
// invoices and the group's offsets are committed by one transaction, so that each order has one invoice, whenever the program ends.
//
// It takes the addresses of brokers and a transactional id. docs/exactly-once.md explains it.
package main

import (
	"context"
	"errors"
	"log"
	"os"
	"os/signal"
	"strings"
	"syscall"
	"time"

	"github.com/twmb/franz-go/pkg/kgo"
)

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), syscall.SIGINT, syscall.SIGTERM)
	defer stop()
	if err := bill(ctx, os.Args[1], os.Args[2]); err != nil && !errors.Is(err, context.Canceled) {
		log.Fatal(err) // whoever watches over the program starts it again
	}
}

func bill(ctx context.Context, brokers, transactionalID string) error {
	s, err := kgo.NewGroupTransactSession(
		kgo.SeedBrokers(strings.Split(brokers, ",")...),
		kgo.TransactionalID(transactionalID), // another one for each program that runs
		kgo.TransactionTimeout(10*time.Second),
		kgo.ConsumerGroup("billing"),
		kgo.SessionTimeout(6*time.Second), // after which others take the partitions of a program that was killed
		kgo.ConsumeTopics("orders"),
		kgo.ConsumeResetOffset(kgo.NewOffset().AtStart()),
		kgo.FetchIsolationLevel(kgo.ReadCommitted()),
	)
	if err != nil {
		return err
	}
	defer s.Close()
	for {
		orders := s.PollRecords(ctx, 100)
		if err := orders.Err(); err != nil {
			return err
		}
		if err := s.Begin(); err != nil {
			return err
		}
		stored := kgo.AbortingFirstErrPromise(s.Client())
		orders.EachRecord(func(order *kgo.Record) {
			s.Produce(ctx, &kgo.Record{Topic: "invoices", Key: order.Key, Value: append([]byte("invoice for "), order.Value...)}, stored.Promise())
		})
		// If an invoice was not stored, or the group has given the partitions to others, this aborts, and the orders are read again.
		if _, err := s.End(ctx, stored.Err() == nil); err != nil {
			return err
		}
	}
}
