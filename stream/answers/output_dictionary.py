"""The deflate dictionary of stored outputs: text that predictions and alerts have in common.

Part of format version 1: a byte changed here makes stored outputs unreadable, so a change needs a
new packing number in `state.codec`. A prediction of 1,000 bytes becomes 250 with it, 520 without.
Most frequent last, where deflate reaches with the shortest distance.
"""

from typing import Final

OUTPUT_DICTIONARY: Final = b"".join(
    (
        b'"no known modality""low confidence""seq_gap""seq_disorder""info""warning""critical"',
        b'"rule":"built-in","severity":"alert_id":"emotrack.shift-alert.v1ce_causationid',
        b"ce_specversion1.0ce_idce_typeemotrack.prediction.v1ce_sourcece_timecontent-type",
        b"application/msgpackapplication/jsontraceparent00-predictedabstaineddead_lettered",
        b'"angry","excited","frustrated","happy","sad""positive","negative",',
        b'"abstained":true,"reason":"","flags":[""],"revision":1,',
        b'predicted\x00{"conversation_id":"","utterance_id":"","speaker_id":"","prediction_id":"',
        b'","emotion":"neutral","probabilities":{"neutral":0.0,"surprise":0.0,"fear":0.0,',
        b'"sadness":0.0,"joy":0.0,"disgust":0.0,"anger":0.0},"confidence":0.9,"sentiment":',
        b'"neutral","shift":null,"shift":{"probability":0.9,"from":"neutral","to":"joy",',
        b'"previous_utterance_id":""},"modalities_used":["text","audio","video","persona"],',
        b'"context":{"utterances":10,"oldest_utterance_id":null,"oldest_utterance_id":"",',
        b'"first_position":0,"truncated":false},"model":{"name":"pcgnet","version":"0.1.0",',
        b'"digest":"","calibration":"temperature(emotion=1., shift=1.; fitted on dev)"},',
        b'"input":{"topic":"emotrack.utterances","partition":0,"offset":1}}',
    )
)
