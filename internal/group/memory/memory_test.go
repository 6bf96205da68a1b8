package memory

import (
	"bytes"
	"log/slog"
	"strings"
	"sync"
	"testing"
	"time"
)

// TestAccountsShareABudget proves that accounts which take bytes at the same time never
// take more than the limit together, that Add goes beyond the limit, and that all bytes
// come back.
func TestAccountsShareABudget(t *testing.T) {
	b := NewBudget(slog.New(slog.DiscardHandler), 1000)
	accounts := make([]*Account, 8)
	var all sync.WaitGroup
	for i := range accounts {
		a := NewAccount(b)
		a.JoinBudget()
		accounts[i] = a
		all.Go(func() {
			for a.Take(3) {
			}
		})
	}
	all.Wait()
	if b.Used() != 999 || b.Free() != 1 {
		t.Errorf("%d bytes are taken, %d are free", b.Used(), b.Free())
	}
	accounts[0].Add(500)
	if b.Free() >= 0 || accounts[1].Take(1) || !accounts[1].Take(-1) {
		t.Errorf("%d bytes are free of an overdrawn budget", b.Free())
	}
	for _, a := range accounts {
		a.LeaveBudget()
		a.LeaveBudget()
	}
	if b.Used() != 0 {
		t.Errorf("%d bytes are taken by nobody", b.Used())
	}
}

// TestLoadingAccountIsItsOwn proves that a machine which is still loading takes nothing
// from others, and that it takes all that it has loaded when it joins the budget.
func TestLoadingAccountIsItsOwn(t *testing.T) {
	b := NewBudget(slog.New(slog.DiscardHandler), 100)
	a := NewAccount(b)
	if !a.Take(150) || b.Used() != 0 || a.Held() != 150 || a.Room() != -50 {
		t.Errorf("it holds %d bytes, of which %d are the budget's", a.Held(), b.Used())
	}
	a.JoinBudget()
	if b.Used() != 150 || a.Room() != -50 {
		t.Errorf("%d bytes are taken when it is open", b.Used())
	}
}

// TestFullIsSaidNowAndThen proves that refusals are logged once in a while only.
func TestFullIsSaidNowAndThen(t *testing.T) {
	var said bytes.Buffer
	a := NewAccount(NewBudget(slog.New(slog.NewTextHandler(&said, nil)), 1))
	a.JoinBudget()
	start := time.Unix(100, 0)
	for i := range 25 {
		if a.Reserve(start.Add(time.Duration(i)*time.Second), "g", 5) {
			t.Fatal("there is room for 5 bytes of 1")
		}
	}
	if n := strings.Count(said.String(), "\n"); n != 3 {
		t.Errorf("it was said %d times in 25 s:\n%s", n, said.String())
	}
}
