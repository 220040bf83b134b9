"""The problem's paragraphs of the model card."""

CARD = {
    "predicts": (
        "The probability that a flight from EWR, JFK or LGA does not arrive on time: 15 minutes or more late, "
        "cancelled or diverted, the definition of the US Department of Transportation. It uses the schedule and up to "
        "seven hours of weather at the origin."
    ),
    "data": "The flights that left New York, with hourly weather. docs/model.md says what was seen of the test period "
    "while features were chosen.",
    "intervals": "Flights of one day share their weather, so whole days are resampled.",
    "scenarios": (
        "The model is tested with the weather that was observed in the hour of departure, which is a perfect forecast. "
        "These are the results with older observations, and without any."
    ),
    "limits": (
        "Three airports: no season outside the training period, no other airline or airport has been seen. The model "
        "has no information on the aircraft, on delays earlier in the day or on the state of the network. It cannot "
        "foresee a storm that the forecast misses. It is not meant for decisions about people."
    ),
}
