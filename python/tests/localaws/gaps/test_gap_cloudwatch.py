RULE = 'ALARM("a") OR ALARM("b")'


def test_a_composite_alarm_is_read_back_changed_and_deleted(aws):
    def described():
        return aws.cloudwatch.describe_alarms(AlarmTypes=["CompositeAlarm"])["CompositeAlarms"]

    aws.cloudwatch.put_composite_alarm(AlarmName="both", AlarmRule=RULE, AlarmDescription="1")
    aws.cloudwatch.put_composite_alarm(AlarmName="both", AlarmRule=RULE, AlarmDescription="2")
    assert [(a["AlarmName"], a["AlarmRule"], a["AlarmDescription"]) for a in described()] == [("both", RULE, "2")]
    aws.cloudwatch.delete_alarms(AlarmNames=["both"])
    assert described() == []
