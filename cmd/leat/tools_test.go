//go:build unix

package main_test

import (
	"bytes"
	"context"
	"net/http"
	"os"
	"testing"
	"time"

	"github.com/twmb/franz-go/pkg/kgo"
)

// eventually fails the test if ok does not become true soon.
func eventually(t *testing.T, what string, ok func() bool) {
	t.Helper()
	until := time.Now().Add(readyLimit)
	for !ok() {
		if time.Now().After(until) {
			t.Fatalf("not within %v: %s", readyLimit, what)
		}
		time.Sleep(2 * time.Millisecond)
	}
}

func httpOK(url string) bool {
	resp, err := http.Get(url)
	if err != nil {
		return false
	}
	_ = resp.Body.Close()
	return resp.StatusCode == http.StatusOK
}

func write(t *testing.T, path, content string) {
	t.Helper()
	if err := os.WriteFile(path, []byte(content), 0o600); err != nil {
		t.Fatal(err)
	}
}

// change replaces the first old in a file, which must contain it.
func change(t *testing.T, path, old, now string) {
	t.Helper()
	content, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	if !bytes.Contains(content, []byte(old)) {
		t.Fatalf("%s has no %q:\n%s", path, old, content)
	}
	write(t, path, string(bytes.Replace(content, []byte(old), []byte(now), 1)))
}

// readAll reads a topic from its start until it has n records, or no more come.
func readAll(t *testing.T, p *process, topic string, n int) []*kgo.Record {
	t.Helper()
	cl := p.client(t, kgo.ConsumeTopics(topic), kgo.ConsumeResetOffset(kgo.NewOffset().AtStart()))
	defer cl.Close()
	var all []*kgo.Record
	for len(all) < n {
		ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
		fetches := cl.PollFetches(ctx)
		cancel()
		if fetches.NumRecords() == 0 {
			t.Errorf("reading %s stopped after %d of %d records: %v", topic, len(all), n, fetches.Err())
			break
		}
		all = append(all, fetches.Records()...)
	}
	return all
}
