package activities_test

import (
	"errors"
	"strings"
	"testing"
	"time"

	. "github.com/aviary-rollouts/aviary/activities"
	"github.com/aviary-rollouts/aviary/activities/notify"
	"github.com/aviary-rollouts/aviary/rollout"
)

func TestNotify(t *testing.T) {
	t.Parallel()
	both := rollout.Notify{Slack: &rollout.SlackNotice{Target: "default", Channel: "#x"}, Webhook: &rollout.WebhookNotice{Target: "default"}}
	busy := &notify.Busy{RetryAfter: 3 * time.Second, Err: errors.New("429")}
	rejected := &notify.Rejected{Err: errors.New("channel_not_found")}
	for name, tc := range map[string]struct {
		notify         rollout.Notify
		slack, webhook error
		kind           string
		final          bool
		delay          time.Duration
		thread         string
		told           [3]int // slack, webhook, log
	}{
		"nobody named":        {thread: `{"log":{"parent":"n/1"}}`, told: [3]int{0, 0, 1}},
		"both":                {notify: both, thread: `{"slack/default":{"parent":"n/1"},"webhook/default":{"parent":"n/1"}}`, told: [3]int{1, 1, 0}},
		"one is busy":         {notify: both, slack: busy, kind: "NotifierError", delay: 3 * time.Second, told: [3]int{1, 1, 0}},
		"one fails":           {notify: both, webhook: errors.New("502"), kind: "NotifierError", told: [3]int{1, 1, 0}},
		"one is refused":      {notify: both, slack: rejected, thread: `{"webhook/default":{"parent":"n/1"}}`, told: [3]int{1, 1, 0}},
		"both are refused":    {notify: both, slack: rejected, webhook: rejected, kind: "NotifierError", final: true, told: [3]int{1, 1, 0}},
		"one refused, a blip": {notify: both, slack: rejected, webhook: errors.New("502"), kind: "NotifierError", told: [3]int{1, 1, 0}},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			slack, webhook, log := &notifier{err: tc.slack}, &notifier{err: tc.webhook}, &notifier{}
			config := newWorld().config()
			config.Notifiers = Notifiers{Slack: Targets[notify.Notifier]{"default": slack}, Webhook: Targets[notify.Notifier]{"default": webhook}, Log: log}
			request := notify.Request{Notice: rollout.Notice{ID: "n/1", Notify: tc.notify}}
			try := attempt{name: "Notify"}
			var thread notify.Thread
			err := try.run(t, config, request, &thread)
			if told := [3]int{len(slack.told), len(webhook.told), len(log.told)}; told != tc.told {
				t.Errorf("told %v", told)
			}
			if tc.kind == "" {
				if err != nil || string(thread) != tc.thread {
					t.Errorf("thread %s, %v", thread, err)
				}
				return
			}
			checkError(t, err, tc.kind, tc.final, tc.delay)
			if tc.final || len(try.beats) == 0 {
				return
			}
			// The retry leaves out who has it.
			slack.err, webhook.err = nil, nil
			if err := (&attempt{name: "Notify", heartbeat: try.beats[len(try.beats)-1]}).run(t, config, request, &thread); err != nil {
				t.Fatal(err)
			}
			if len(slack.told)+len(webhook.told) != 3 || !strings.Contains(string(thread), "slack/default") || !strings.Contains(string(thread), "webhook/default") {
				t.Errorf("told %d and %d times, thread %s", len(slack.told), len(webhook.told), thread)
			}
		})
	}
}

func TestNotifyGoesOnInItsThread(t *testing.T) {
	t.Parallel()
	log := &notifier{}
	config := newWorld().config()
	config.Notifiers.Log = log
	for i, thread := range []string{`{"log":{"parent":"n/0"},"slack/eu":{"ts":1}}`, `garbage`, ``} {
		request := notify.Request{Notice: rollout.Notice{ID: "n/1"}, Thread: notify.Thread(thread)}
		if i == 1 {
			request.Thread = notify.Thread(`"garbage"`)
		}
		var got notify.Thread
		if err := (&attempt{name: "Notify"}).run(t, config, request, &got); err != nil {
			t.Fatal(err)
		}
		if i == 0 && (string(log.told[0].Thread) != `{"parent":"n/0"}` || string(got) != `{"log":{"parent":"n/1"},"slack/eu":{"ts":1}}` || log.told[0].Attempt != 1) {
			t.Errorf("told in %s, then %s", log.told[0].Thread, got)
		}
		if i > 0 && log.told[i].Thread != nil {
			t.Errorf("told in %s", log.told[i].Thread)
		}
	}
}
