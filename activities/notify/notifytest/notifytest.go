// Package notifytest is the conformance suite of notifiers.
package notifytest

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/aviary-rollouts/aviary/activities/notify"
	"github.com/aviary-rollouts/aviary/rollout"
)

// Fault is what a Receiver does wrong, once, to the next message.
type Fault string

// The faults.
const (
	Lost    Fault = "lost"    // the message arrives, its answer does not
	Busy    Fault = "busy"    // not taken: come back in BusyFor
	Broken  Fault = "broken"  // not taken: an internal error
	Hang    Fault = "hang"    // not taken, and no answer until the caller gives up
	Refused Fault = "refused" // not taken: the address or the token is not known
)

// BusyFor is the pause that a Busy receiver asks for.
const BusyFor = 7 * time.Second

// Receiver is the far end of a Notifier under test, seen from the humans.
type Receiver struct {
	Notifier notify.Notifier
	// Address puts into a notice what this kind of notifier needs.
	Address func(*rollout.Notify)
	// Seen are the IDs of the notices that the humans have seen, each as often as they saw it, in the order of arrival.
	Seen func() []string
	// Fail lets the next message meet a fault. It is nil when there is nothing in between that could fail.
	Fail func(Fault)
	// Secrets must not be told in any error.
	Secrets []string
}

// Notice is a notice as a rollout makes it: the nth of the rollout of agent.
func (r Receiver) Notice(agent string, n int) rollout.Notice {
	owner := "canary/" + agent + "/run-1"
	kind := rollout.DecideAdvance
	if n == 1 {
		kind = rollout.DecideStart
	}
	now := time.Now()
	decision := rollout.Decision{At: now, Kind: kind, Phase: rollout.Observing, Stage: "initial", Weight: 500, By: "aviary", Reason: fmt.Sprintf("reason %d", n)}
	notice := rollout.Notice{
		ID: fmt.Sprintf("%s/%d", owner, n), Owner: owner, Agent: agent, Stable: "v41", Canary: "v42", Urgency: rollout.Info, Decision: decision,
		Status: rollout.Status{
			Agent: agent, Stable: "v41", Canary: "v42", Phase: rollout.Observing, Stage: "initial", Stages: 4, Weight: 500,
			Started: now.Add(-time.Minute), Duration: rollout.Duration(30 * time.Minute), Owner: owner, Last: &decision,
		},
	}
	r.Address(&notice.Notify)
	return notice
}

// Run runs the suite. Setup makes a fresh receiver for one test and cleans it up.
func Run(t *testing.T, setup func(t *testing.T) Receiver) {
	t.Helper()
	tests := map[string]func(*testing.T, Receiver){
		"every notice is seen once, in order":       inOrder,
		"a finished notice again is not seen again": again,
		"a foreign thread is as good as none":       foreignThread,
		"rollouts do not mix":                       concurrent,
		"a caller that is gone is an error":         canceled,
	}
	faults := map[string]func(*testing.T, Receiver){
		"a lost answer does not lead to a second message": lostAnswer,
		"a busy receiver asks for a pause":                busy,
		"a passing fault is passed by the next try":       passing,
		"a refusal is final":                              refused,
	}
	run := func(name string, test func(*testing.T, Receiver), faulty bool) {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			r := setup(t)
			if faulty && r.Fail == nil {
				return // nothing between this notifier and its receiver can fail
			}
			test(t, r)
		})
	}
	for name, test := range tests {
		run(name, test, false)
	}
	for name, test := range faults {
		run(name, test, true)
	}
}

// send is one try.
func send(t *testing.T, r Receiver, n rollout.Notice, thread notify.Thread, attempt int32) (notify.Thread, error) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), 30*time.Second)
	defer cancel()
	got, err := r.Notifier.Notify(ctx, notify.Request{Notice: n, Thread: thread, Attempt: attempt})
	if err != nil {
		for _, secret := range r.Secrets {
			if strings.Contains(err.Error(), secret) {
				t.Errorf("error %q tells a secret", err)
			}
		}
		return thread, err
	}
	// As Temporal carries it.
	raw, err := json.Marshal(struct {
		Thread notify.Thread `json:"thread,omitempty"`
	}{got})
	if err != nil {
		t.Fatalf("the thread %q is not JSON: %v", got, err)
	}
	if len(raw) > 1024 {
		t.Errorf("the thread takes %d bytes, want a small one", len(raw))
	}
	var back struct {
		Thread notify.Thread `json:"thread"`
	}
	if err := json.Unmarshal(raw, &back); err != nil {
		t.Fatal(err)
	}
	return back.Thread, nil
}

func mustSend(t *testing.T, r Receiver, n rollout.Notice, thread notify.Thread, attempt int32) notify.Thread {
	t.Helper()
	thread, err := send(t, r, n, thread, attempt)
	if err != nil {
		t.Fatalf("notice %s, attempt %d: %v", n.ID, attempt, err)
	}
	return thread
}

func wantSeen(t *testing.T, r Receiver, notices ...rollout.Notice) {
	t.Helper()
	var want []string
	for _, n := range notices {
		want = append(want, n.ID)
	}
	if diff := cmp.Diff(want, r.Seen()); diff != "" {
		t.Errorf("seen (-want +got):\n%s", diff)
	}
}

func inOrder(t *testing.T, r Receiver) {
	var thread notify.Thread
	var sent []rollout.Notice
	for i := 1; i <= 4; i++ {
		sent = append(sent, r.Notice("a", i))
		thread = mustSend(t, r, sent[i-1], thread, 1)
	}
	wantSeen(t, r, sent...)
}

func again(t *testing.T, r Receiver) {
	one, two := r.Notice("a", 1), r.Notice("a", 2)
	thread := mustSend(t, r, one, nil, 1)
	mustSend(t, r, one, nil, 2)
	mustSend(t, r, two, thread, 1)
	mustSend(t, r, two, thread, 2)
	mustSend(t, r, two, thread, 3)
	wantSeen(t, r, one, two)
}

func foreignThread(t *testing.T, r Receiver) {
	one, two, three := r.Notice("a", 1), r.Notice("a", 2), r.Notice("a", 3)
	mustSend(t, r, one, notify.Thread(`null`), 1)
	mustSend(t, r, two, notify.Thread(`{"other": ["thing"]}`), 1)
	mustSend(t, r, three, notify.Thread(`17`), 1)
	wantSeen(t, r, one, two, three)
}

func concurrent(t *testing.T, r Receiver) {
	var wg sync.WaitGroup
	var want []string
	for _, agent := range []string{"a", "b", "c", "d", "e", "f"} {
		for i := 1; i <= 3; i++ {
			want = append(want, r.Notice(agent, i).ID)
		}
		wg.Go(func() {
			var thread notify.Thread
			for i := 1; i <= 3; i++ {
				var err error
				if thread, err = send(t, r, r.Notice(agent, i), thread, 1); err != nil {
					t.Errorf("%s %d: %v", agent, i, err)
				}
			}
		})
	}
	wg.Wait()
	count := map[string]int{}
	for _, id := range r.Seen() {
		count[id]++
	}
	for _, id := range want {
		if count[id] != 1 {
			t.Errorf("notice %s was seen %d times, want once", id, count[id])
		}
	}
	if len(count) != len(want) {
		t.Errorf("%d notices were seen, want %d", len(count), len(want))
	}
}

func canceled(t *testing.T, r Receiver) {
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	_, err := r.Notifier.Notify(ctx, notify.Request{Notice: r.Notice("a", 1), Attempt: 1})
	if !errors.Is(err, context.Canceled) {
		t.Errorf("error %v, want %v", err, context.Canceled)
	}
	wantSeen(t, r)
}

func lostAnswer(t *testing.T, r Receiver) {
	var thread notify.Thread
	var sent []rollout.Notice
	for i := 1; i <= 3; i++ {
		n := r.Notice("a", i)
		sent = append(sent, n)
		r.Fail(Lost)
		_, err := send(t, r, n, thread, 1)
		wantPassing(t, err)
		thread = mustSend(t, r, n, thread, 2)
		wantSeen(t, r, sent...)
	}
}

func wantPassing(t *testing.T, err error) {
	t.Helper()
	var rejected *notify.Rejected
	if err == nil || errors.As(err, &rejected) {
		t.Fatalf("error %v, want a passing fault", err)
	}
}

func busy(t *testing.T, r Receiver) {
	n := r.Notice("a", 1)
	r.Fail(Busy)
	_, err := send(t, r, n, nil, 1)
	var asked *notify.Busy
	if !errors.As(err, &asked) || asked.RetryAfter != BusyFor {
		t.Fatalf("error %v, want *notify.Busy with %s", err, BusyFor)
	}
	mustSend(t, r, n, nil, 2)
	wantSeen(t, r, n)
}

func passing(t *testing.T, r Receiver) {
	n := r.Notice("a", 1)
	for i, fault := range []Fault{Broken, Hang} {
		r.Fail(fault)
		_, err := send(t, r, n, nil, int32(i)+1)
		wantPassing(t, err)
	}
	mustSend(t, r, n, nil, 3)
	wantSeen(t, r, n)
}

func refused(t *testing.T, r Receiver) {
	r.Fail(Refused)
	_, err := send(t, r, r.Notice("a", 1), nil, 1)
	var rejected *notify.Rejected
	if !errors.As(err, &rejected) {
		t.Fatalf("error %v, want *notify.Rejected", err)
	}
	wantSeen(t, r)
}
