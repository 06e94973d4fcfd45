package rollout

// Remark is one thing that a look at what a rollout needs has found, before anything starts.
type Remark struct {
	Level RemarkLevel `json:"level"`
	Path  string      `json:"path"` // in the rollout file, such as traffic.object.rule; empty: of the whole
	Text  string      `json:"text"`
}

// RemarkLevel says how bad a remark is.
type RemarkLevel string

// The levels of remarks.
const (
	RemarkOK      RemarkLevel = "ok"
	RemarkWarning RemarkLevel = "warning" // the rollout would start, and may not do what is wanted
	RemarkError   RemarkLevel = "error"   // the rollout would be refused, or could not be carried out
)
