"""Conditions in bucket policies; what a request must carry to pass is what AWS asks of it."""

import json

import pytest
from botocore.exceptions import ClientError

BUCKET = "data"
KEY = "arn:aws:kms:us-east-1:123456789012:key/right"
WRONG = "arn:aws:kms:us-east-1:123456789012:key/wrong"
KMS = {"ServerSideEncryption": "aws:kms", "SSEKMSKeyId": KEY}


def deny(aws, condition, action="s3:PutObject"):
    """Makes the bucket refuse the action where the condition is met."""
    aws.s3.create_bucket(Bucket=BUCKET)
    aws.s3.put_object(Bucket=BUCKET, Key="k", Body=b"0")
    statement = {
        "Effect": "Deny",
        "Principal": "*",
        "Action": action,
        "Resource": f"arn:aws:s3:::{BUCKET}/*",
        "Condition": condition,
    }
    aws.s3.put_bucket_policy(Bucket=BUCKET, Policy=json.dumps({"Version": "2012-10-17", "Statement": [statement]}))


def may_put(aws, **parameters):
    try:
        aws.s3.put_object(Bucket=BUCKET, Key="k", Body=b"1", **parameters)
    except ClientError as e:
        assert e.response["ResponseMetadata"]["HTTPStatusCode"] == 403
        return False
    return True


def test_loopback_counts_as_secure_transport(aws):
    deny(aws, {"Bool": {"aws:SecureTransport": "false"}}, action="s3:*")
    assert may_put(aws)


def test_the_wrong_key_is_refused_and_the_right_one_is_not(aws):
    deny(aws, {"StringNotEquals": {"s3:x-amz-server-side-encryption-aws-kms-key-id": KEY}})
    assert may_put(aws, **KMS)
    assert not may_put(aws, **{**KMS, "SSEKMSKeyId": WRONG})


def test_a_negated_operator_matches_an_absent_key_even_with_if_exists(aws):
    deny(aws, {"StringNotEquals": {"s3:x-amz-server-side-encryption": "aws:kms"}})
    assert not may_put(aws)
    assert may_put(aws, **KMS)


def test_if_exists_lets_an_absent_key_through_for_a_plain_operator(aws):
    deny(aws, {"StringEquals": {"s3:x-amz-server-side-encryption": "AES256"}})
    assert may_put(aws)
    assert not may_put(aws, ServerSideEncryption="AES256")


def test_null_asks_whether_the_key_is_there(aws):
    deny(
        aws,
        {
            "Null": {"s3:x-amz-server-side-encryption": "false"},
            "StringNotEquals": {"s3:x-amz-server-side-encryption": "aws:kms"},
        },
    )
    assert may_put(aws)
    assert may_put(aws, **KMS)
    assert not may_put(aws, ServerSideEncryption="AES256")


ID = "s3:x-amz-server-side-encryption-aws-kms-key-id"


@pytest.mark.parametrize(
    ("met", "unmet"),
    [
        ({"StringLike": {ID: "*/ri?ht"}}, {"StringLike": {ID: "*/wrong"}}),
        ({"ArnLike": {ID: "arn:aws:kms:*:*:key/right"}}, {"ArnNotLike": {ID: "arn:aws:kms:*:*:key/right"}}),
        ({"StringEquals": {ID: ["a", KEY]}}, {"StringNotEquals": {ID: ["a", KEY]}}),
        ({"StringEqualsIgnoreCase": {ID: KEY.upper()}}, {"StringEquals": {ID: KEY.upper()}}),
        ({"IpAddress": {"aws:SourceIp": "127.0.0.0/8"}}, {"NotIpAddress": {"aws:SourceIp": "127.0.0.0/8"}}),
        (
            {"DateGreaterThan": {"aws:CurrentTime": "2020-01-01T00:00:00Z"}},
            {"DateLessThan": {"aws:CurrentTime": ["2020-01-01T00:00:00Z", "2020-01-01"]}},
        ),
        ({"NumericLessThanIfExists": {"s3:max-keys": 10}}, {"NumericLessThan": {"s3:max-keys": 10}}),
        ({"Bool": {"aws:SecureTransport": True}}, {"Bool": {"aws:SecureTransport": ["false"]}}),
        ({"Null": {ID: False}}, {"Null": {ID: "true"}}),
        ({"ForAnyValue:StringEquals": {ID: KEY}}, {"ForAnyValue:StringEquals": {"s3:absent": KEY}}),
        ({"ForAllValues:StringEquals": {"s3:absent": KEY}}, {"ForAllValues:StringEquals": {ID: "a"}}),
    ],
)
def test_operators(aws, met, unmet):
    deny(aws, met)
    assert not may_put(aws, **KMS)
    aws.s3.delete_bucket_policy(Bucket=BUCKET)
    aws.s3.delete_object(Bucket=BUCKET, Key="k")
    aws.s3.delete_bucket(Bucket=BUCKET)
    deny(aws, unmet)
    assert may_put(aws, **KMS)


def test_tagging_an_object_is_not_writing_it(aws):
    deny(aws, {"StringNotEquals": {"s3:x-amz-server-side-encryption": "aws:kms"}})
    aws.s3.put_object_tagging(Bucket=BUCKET, Key="k", Tagging={"TagSet": [{"Key": "a", "Value": "b"}]})
    assert aws.s3.get_object_tagging(Bucket=BUCKET, Key="k")["TagSet"] == [{"Key": "a", "Value": "b"}]


def test_reading_the_head_of_an_object_is_reading_it(aws):
    deny(aws, {"Bool": {"aws:SecureTransport": "true"}}, action="s3:GetObject")
    with pytest.raises(ClientError, match="403"):
        aws.s3.head_object(Bucket=BUCKET, Key="k")


def test_the_parts_of_an_upload_are_judged_by_its_beginning(aws):
    deny(aws, {"StringNotEquals": {"s3:x-amz-server-side-encryption-aws-kms-key-id": KEY}})
    with pytest.raises(ClientError):
        aws.s3.create_multipart_upload(Bucket=BUCKET, Key="k", **{**KMS, "SSEKMSKeyId": WRONG})
    upload = {"Bucket": BUCKET, "Key": "k"}
    upload["UploadId"] = aws.s3.create_multipart_upload(**upload, **KMS)["UploadId"]
    etag = aws.s3.upload_part(**upload, PartNumber=1, Body=b"part")["ETag"]
    aws.s3.complete_multipart_upload(**upload, MultipartUpload={"Parts": [{"PartNumber": 1, "ETag": etag}]})
    assert aws.s3.get_object(Bucket=BUCKET, Key="k")["Body"].read() == b"part"
