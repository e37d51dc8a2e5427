package wire

// Current is retained on trust/current: the two metadata files that change
// with every publication. Both are raw TUF metadata; their signatures are over
// their own bytes.
type Current struct {
	V         int    `json:"v"`
	Timestamp []byte `json:"timestamp"`
	Snapshot  []byte `json:"snapshot"`
}

// MaxMetadata is the size limit of a role's metadata; 0 for an unknown role.
func MaxMetadata(role string) int {
	switch role {
	case RoleRoot:
		return MaxRoot
	case RoleTargets:
		return MaxTargets
	case RoleModels:
		return MaxModels
	case RoleRollouts:
		return MaxRollouts
	case "snapshot":
		return MaxSnapshot
	case "timestamp":
		return MaxTimestamp
	}
	return 0
}
