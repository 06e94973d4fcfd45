package cli

import (
	enumspb "go.temporal.io/api/enums/v1"
	workflowpb "go.temporal.io/api/workflow/v1"
	"go.temporal.io/sdk/converter"

	"github.com/aviary-rollouts/aviary/rollout"
)

// underWay is what the heartbeat of Observe says of the slice under way, as far as it is shown. The workflow itself learns of
// a slice, which may last an hour, only at its end.
type underWay struct {
	Slice *struct {
		Observed rollout.Duration `json:"observed"`
		Requests rollout.Requests `json:"requests"`
		Series   []rollout.Point  `json:"series"`
	} `json:"slice"`
}

// freshen adds the slice under way to what the workflow knows.
func (l *look) freshen(pending []*workflowpb.PendingActivityInfo) {
	if l.Status.Phase != rollout.Observing && l.Status.Phase != rollout.AwaitingApproval {
		return
	}
	for _, activity := range pending {
		if activity.GetActivityType().GetName() != string(rollout.TaskObserve) ||
			activity.GetState() == enumspb.PENDING_ACTIVITY_STATE_CANCEL_REQUESTED { // the orphan of an earlier slice
			continue
		}
		var live underWay
		if err := converter.GetDefaultDataConverter().FromPayloads(activity.GetHeartbeatDetails(), &live); err != nil || live.Slice == nil {
			continue
		}
		if l.Status.Phase == rollout.Observing && l.Status.Paused == nil {
			l.Status.Observed += live.Slice.Observed
		}
		l.Status.Requests = l.Status.Requests.Add(live.Slice.Requests)
		l.Live = live.Slice.Series
	}
}
