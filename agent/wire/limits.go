package wire

// Version is the version of every message in this package.
const Version = 1

// Limits. Both sides refuse what exceeds them before decoding.
const (
	MaxMessage   = 128 << 10 // bytes of any MQTT payload
	MaxCurrent   = 16 << 10  // Current: timestamp and snapshot in base64
	MaxRoot      = 64 << 10  // TUF metadata, by role
	MaxTargets   = 64 << 10
	MaxModels    = 96 << 10
	MaxRollouts  = 96 << 10
	MaxSnapshot  = 6 << 10
	MaxTimestamp = 4 << 10
	MaxManifest  = 1 << 20   // 16,384 labels fit
	MaxGolden    = 8 << 20   // the golden blob
	MaxBlob      = 512 << 20 // a model
	ChunkSize    = 64 << 10  // bytes of every chunk of a blob but the last
	MaxCases     = 32        // golden inputs
	MaxVariants  = 8
	MaxDeltas    = 8   // of one variant
	MaxListed    = 200 // device ids in a selector
	MaxPending   = 64  // rollout plans that are open at once
)
